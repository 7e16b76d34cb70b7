"""The exported policy as an MLflow model: MLflow runs this file when it loads one.

A row holds an observation, and which choices are allowed where any row says so; the answer holds action, control and
logits of each row. The parameter seed samples the actions; -1 takes the most likely ones.
"""

import importlib.util
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException


class ServedPolicy(mlflow.pyfunc.PythonModel):
    """`run_onnx.Policy` behind MLflow's interface."""

    def load_context(self, context):
        folder = Path(context.artifacts["policy"])
        spec = importlib.util.spec_from_file_location("run_onnx", folder / "run_onnx.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.policy = module.Policy(folder)

    def predict(self, context, model_input, params=None):
        nvec = self.policy.card["nvec"]
        try:
            observation = array(model_input["observation"])
            allowed = None
            if "allowed" in model_input:
                anything = np.arange(max(nvec)) < np.asarray(nvec)[:, None]
                allowed = array(anything if row is None else row for row in model_input["allowed"])
            seed = (params or {}).get("seed", -1)
            shape = (len(observation), len(nvec), max(nvec))
            noise = np.random.default_rng(seed).gumbel(size=shape) if seed >= 0 else None
            action, control, logits = self.policy.act(observation, noise, allowed)
        except ValueError as error:  # the server answers 400 with this message
            raise MlflowException.invalid_parameter_value(str(error)) from error
        # JSON knows no infinity: a choice that does not exist or is forbidden has no logit.
        plain = np.where(np.isfinite(logits), logits, None)
        return pd.DataFrame({"action": action.tolist(), "control": control.tolist(), "logits": plain.tolist()})


def array(rows):
    """One array (B, ...) of rows that are lists, or lists of lists."""
    return np.stack([np.stack([np.asarray(part) for part in row]) for row in rows])


mlflow.models.set_model(ServedPolicy())
