"""The action structure model: the network, its masked pre-training, and frozen loading under a fingerprint."""

from spinrl.asm.model import ASM, ASMEncoder

__all__ = ["ASM", "ASMEncoder"]
