"""Every policy keeps the contract of policies."""

from spinrl import testing as contracts
from spinrl.policies import SAINT, SPIN, Autoregressive, Factored

AUTOREGRESSIVE = Autoregressive(state_width=8, action_width=4, lstm_width=16)


def test_factored():
    contracts.check_policy(Factored(hidden=[16, 16]))


def test_autoregressive():
    contracts.check_policy(AUTOREGRESSIVE)


def test_saint():
    contracts.check_policy(SAINT(encoder=contracts.SMALL))


def test_spin():
    contracts.check_policy(SPIN())


def test_spin_with_fixed_slot_queries():
    contracts.check_policy(SPIN(slot_queries="mask_tokens", query_share=0.0, frozen_dropout=False))
