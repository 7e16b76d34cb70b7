"""Logging an exported policy to MLflow as a model that it can serve."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from harness.exporting.finished import FinishedCell
from harness.tracking.connection import store_uri
from harness.tracking.outbox import one_line
from spinrl.errors import UserError
from spinrl.export.formats import RUNNERS

SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(Array(DataType.double), "observation"),
            ColSpec(Array(Array(DataType.boolean)), "allowed", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.long), "action"),
            ColSpec(Array(DataType.double), "control"),
            ColSpec(Array(Array(DataType.double)), "logits"),
        ]
    ),
    params=ParamSchema([ParamSpec("seed", DataType.long, -1)]),
)


def log_model(folder: Path, cell: FinishedCell, name: str, tracking_uri: str | None) -> str:
    """Log an exported folder with an onnx model to its cell's run, and register it.

    The model is code and data, without any pickle.

    Args:
        folder: folder that ``tools/export_policy.py`` wrote.
        cell: exported cell; it has to come from an MLflow run.
        name: name of the registered model.
        tracking_uri: as for `harness.tracking.tracker.Tracker.open`.

    Returns:
        The version registered.

    Raises:
        UserError: when MLflow does not take it.
    """
    mlflow.set_tracking_uri(store_uri(tracking_uri))
    client = mlflow.MlflowClient()
    example = pd.DataFrame({"observation": json.loads((folder / "example.json").read_text(encoding="utf-8"))})
    assert cell.run_id is not None
    try:
        before = client.get_run(cell.run_id).info
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on type hints, and on columns that could be missing
            # Not through an active run, which would open the finished one again.
            info = Model.log(
                artifact_path=None,
                name="policy",
                flavor=mlflow.pyfunc,
                run_id=cell.run_id,
                python_model=str(RUNNERS / "serve_onnx.py"),
                artifacts={"policy": str(folder)},
                signature=SIGNATURE,
                input_example=example,
                registered_model_name=name,
                pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "numpy", "onnxruntime")],
            )
        after = client.get_run(cell.run_id).info
        if (after.status, after.end_time) != (before.status, before.end_time):
            client.set_terminated(cell.run_id, before.status, before.end_time)
    except MlflowException as error:
        raise UserError(f"{folder} is written, but MLflow did not take it: {one_line(error)}") from error
    return str(info.registered_model_version)
