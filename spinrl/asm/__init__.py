"""The action structure model: the network, its masked pre-training, and frozen loading under a fingerprint."""

from spinrl.asm.frozen import ASMError, FrozenASM
from spinrl.asm.masking import Masking, masked_cross_entropy, masked_prediction
from spinrl.asm.model import ASM, ASMEncoder
from spinrl.asm.pretraining import Pretraining, PretrainingProgress, asm_folder, pretrained_asm

__all__ = [
    "ASM",
    "ASMEncoder",
    "ASMError",
    "FrozenASM",
    "Masking",
    "Pretraining",
    "PretrainingProgress",
    "asm_folder",
    "masked_cross_entropy",
    "masked_prediction",
    "pretrained_asm",
]
