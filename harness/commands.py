"""The commands by name, and how each is typed: as ``spinrl run`` or as ``python -m harness.run``."""

from __future__ import annotations

COMMANDS = {
    "run": ("harness.run", "train and evaluate every cell of an experiment"),
    "report": ("harness.report", "tables and figures of an experiment, from its stored returns"),
    "probe": ("harness.probe", "probe what an action structure model knows of the actions"),
    "sync": ("harness.sync", "send results that were kept while a tracking server was away"),
    "export": ("tools.export_policy", "export a trained policy as ONNX, torch.export and safetensors"),
    "render": ("tools.render_policy", "film a policy: a video and a strip of pictures"),
    "import": ("tools.import_dataset", "import data that was logged elsewhere, as a dataset"),
    "collect": ("tools.collect_dataset", "collect the dataset of a task and a tier"),
    "describe": ("tools.describe_dataset", "statistics and figures of a dataset"),
    "export-data": ("tools.export_dataset", "export a dataset to Minari"),
    "train-behavior": ("tools.train_behavior", "train the behaviour policies that datasets are collected by"),
    "benchmark": ("tools.benchmark", "time training, acting, saving and evaluation"),
    "benchmark-data": ("tools.benchmark_data", "time making and opening datasets"),
    "gpu-check": ("tools.gpu_check", "test and time captured steps on a GPU, and train on it"),
    "paper-cost": ("tools.paper_cost", "what the paper's tables cost, from measured steps a second"),
    "scaling": ("tools.scaling", "measure what more cells at a time gain"),
}
_by_name = False


def started_by_name() -> None:
    """This process was started as ``spinrl``: what it tells the user to type is of that form too."""
    global _by_name
    _by_name = True


def typed(module: str) -> str:
    """The text to type for the command in `module`, in the form in which this process was started."""
    if _by_name:
        return f"spinrl {next(name for name, (its_module, _) in COMMANDS.items() if its_module == module)}"
    return f"python -m {module}"
