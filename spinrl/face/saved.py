"""A saved policy, read back."""

from __future__ import annotations

from pathlib import Path

from spinrl import checkpoint
from spinrl.algorithms import AlgorithmConfig, rebuilt
from spinrl.asm import ASMEncoder
from spinrl.config import ConfigError, from_plain
from spinrl.errors import UserError
from spinrl.evaluation import FittedQ
from spinrl.face.policy import FILE, FORMAT_VERSION, TrainedPolicy
from spinrl.policies import PolicyConfig
from spinrl.specs import ActionSpec


def load(folder: str | Path) -> TrainedPolicy:
    """The policy that `TrainedPolicy.save` wrote; nothing in the file is run.

    Raises:
        UserError: when there is none, or it is damaged or of another version.
    """
    path = Path(folder) / FILE
    state = checkpoint.load(path)
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, this spinrl reads {FORMAT_VERSION}; use the spinrl that wrote it"
        )
    try:
        policy, algorithm, fitted_q = (from_plain(state[name]) for name in ("policy", "algorithm", "fitted_q"))
        encoder = from_plain(state["encoder"]) if state["encoder"] else None
        assert isinstance(policy, PolicyConfig) and isinstance(algorithm, AlgorithmConfig)
        assert isinstance(fitted_q, FittedQ) and isinstance(encoder, ASMEncoder | None)
        size, spec = int(state["observation_size"]), ActionSpec(state["nvec"])
        fingerprint = state["asm_fingerprint"]
        made = rebuilt(
            policy, algorithm, encoder or ASMEncoder(), size, spec, fingerprint, state["seed"], state["state"]
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, ConfigError) as error:
        raise UserError(f"{path} does not fit together: {' '.join(str(error).split())[:400]}") from error
    return TrainedPolicy(
        made,
        policy=policy,
        encoder=encoder,
        asm_fingerprint=fingerprint,
        fitted_q=fitted_q,
        seed=state["seed"],
        step=state["step"],
        task=state["task"],
        known=state["known"],
    )
