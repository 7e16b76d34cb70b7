"""Every policy, small: what the tests of each algorithm run over."""

from spinrl import testing as contracts
from spinrl.policies import SAINT, SPIN, Autoregressive, Factored

POLICIES = {
    "factored": Factored(hidden=[16, 16]),
    "autoregressive": Autoregressive(state_width=8, action_width=4, lstm_width=16),
    "saint": SAINT(encoder=contracts.SMALL),
    "spin": SPIN(),
    "spin_fixed": SPIN(query_share=0.0),
}
