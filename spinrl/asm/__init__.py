"""The action structure model: the network, its pre-training, frozen loading under a fingerprint, and a probe of it."""

from spinrl.asm.frozen import ASMError, Curve, FrozenASM
from spinrl.asm.masking import Masking, masked_cross_entropy, masked_prediction
from spinrl.asm.model import ASM, ASMEncoder
from spinrl.asm.pretraining import Pretraining
from spinrl.asm.probe import PROBE_INPUTS, LinearProbe, ProbeError, ProbeResult, probe_asm
from spinrl.asm.source import ASMRequest, ASMSource, PretrainingProgress, asm_folder, pretrained_asm

__all__ = [
    "ASM",
    "PROBE_INPUTS",
    "ASMEncoder",
    "ASMError",
    "ASMRequest",
    "ASMSource",
    "Curve",
    "FrozenASM",
    "LinearProbe",
    "Masking",
    "Pretraining",
    "PretrainingProgress",
    "ProbeError",
    "ProbeResult",
    "asm_folder",
    "masked_cross_entropy",
    "masked_prediction",
    "pretrained_asm",
    "probe_asm",
]
