"""The networks against plain, slow versions of themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spinrl.nn import CriticEnsemble, Dropout, LSTMLayer, SlotEncoder, StackedHeads, TransformerBlock
from spinrl.specs import ActionSpec

nvecs = st.lists(st.integers(2, 7), min_size=1, max_size=5)


def plain_block(block, x):
    """The block as its equations say, with two norms, three projections and torch's own attention."""
    attention = nn.MultiheadAttention(x.shape[-1], block.num_heads, batch_first=True)
    parts = (block.query, block.key, block.value)
    attention.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": block.out.weight,
            "out_proj.bias": block.out.bias,
        }
    )
    queries, memory = block.norm_query(x), block.norm_key_value(x)
    x = x + attention(queries, memory, memory, need_weights=False)[0]
    return x + block.ffn_out(functional.gelu(block.ffn_in(block.norm_ffn(x))))


def random_norms(module):
    """Norms with scales and shifts that matter: as built, they do nothing."""
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias)


@pytest.mark.parametrize("tail", [None, 1, 3])
def test_block_is_pre_norm_attention_and_ffn(tail):
    block = TransformerBlock(16, 4, dropout=0.5).eval()
    random_norms(block)
    x = torch.randn(3, 5, 16)
    expected = plain_block(block, x)
    torch.testing.assert_close(block(x, tail), expected if tail is None else expected[:, -tail:], rtol=1e-4, atol=1e-5)


def test_block_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="multiple of num_heads, got 10 and 4"):
        TransformerBlock(10, 4, dropout=0.0)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 5),
    slots=st.integers(1, 4),
    rows=st.integers(1, 30),
    blocks=st.integers(1, 3),
    state=st.integers(0, 2),
)
def test_encoder_shortcuts_change_nothing(batch, slots, rows, blocks, state):
    """Sharing the first block over table rows and leaving state tokens out of the last is exact, gradients too."""
    encoder = SlotEncoder(
        4, d_model=8, num_heads=2, num_blocks=blocks, num_state_tokens=max(state, 1), dropout=0.0,
        state_conditioning=state > 0,
    )  # fmt: skip
    random_norms(encoder)
    observation = torch.randn(batch, 4)
    index = torch.randint(rows, (batch, slots))
    table = torch.randn(rows, 8, requires_grad=True)
    got = encoder(observation, table, index)

    tokens = table[index]
    x = tokens if encoder.state_encoder is None else torch.cat([encoder.state_encoder(observation), tokens], dim=1)
    for block in encoder.blocks:
        x = plain_block(block, x)
    expected = x[:, -slots:]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((weight * out).sum(), table)[0] for out in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)

    chosen = torch.randint(batch, (slots, 2))
    picked = encoder(observation, table, index, chosen)
    for slot in range(slots):
        torch.testing.assert_close(picked[slot], expected[chosen[slot], slot], rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(nvec=nvecs, hidden=st.sampled_from([None, 6]), shared=st.booleans())
def test_stacked_heads_are_one_small_network_each(nvec, hidden, shared):
    spec = ActionSpec(nvec)
    heads = StackedHeads(spec, 5, hidden=hidden, dropout=0.0)
    x = torch.randn(3, 5) if shared else torch.randn(3, len(nvec), 5)
    logits = heads(x)
    for i, choices in enumerate(nvec):
        one = x if shared else x[:, i]
        if hidden is not None:
            one = functional.gelu(one @ heads.hidden_weight[i] + heads.hidden_bias[i])
        expected = one @ heads.weight[i] + heads.bias[i]
        torch.testing.assert_close(logits[:, i, :choices], expected[:, :choices])
        assert (logits[:, i, choices:] == -torch.inf).all()
        torch.testing.assert_close(heads.logits_of(i, x if shared else x[:, i]), logits[:, i])
    logits.log_softmax(-1)[..., 0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in heads.parameters())
    assert not heads.weight.grad.transpose(1, 2)[~spec.valid()].any()


@settings(max_examples=25, deadline=None)
@given(nvec=nvecs, ensemble=st.integers(1, 3))
def test_critics_add_up_what_was_chosen(nvec, ensemble):
    spec = ActionSpec(nvec)
    critics = CriticEnsemble(4, spec, hidden=[6], num_critics=ensemble)
    observation = torch.randn(3, 4)
    action = torch.stack([torch.randint(m, (3,)) for m in nvec], dim=1)
    per_choice = critics.per_choice(observation)
    assert per_choice.shape == (ensemble, 3, len(nvec), max(nvec))
    assert torch.equal(per_choice.isinf(), (~spec.valid()).expand_as(per_choice))
    expected = per_choice.gather(-1, action.expand(ensemble, -1, -1)[..., None]).sum((-1, -2))
    torch.testing.assert_close(critics(observation, action), expected)
    for member in range(ensemble):
        hidden = functional.relu(observation @ critics.weights[0][member] + critics.biases[0][member])
        outputs = hidden @ critics.weights[1][member] + critics.biases[1][member]
        torch.testing.assert_close(critics.outputs(observation)[member], outputs)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_lstm_layer_is_torchs_with_its_gradients(steps):
    layer, theirs = LSTMLayer(3, 5), nn.LSTM(3, 5)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(theirs, f"{name}_l0").copy_(getattr(layer, name))
    x = torch.randn(steps, 4, 3, requires_grad=True)
    weight = torch.randn(steps, 4, 5)
    hidden, expected = layer(layer.input_gates(x)), theirs(x)[0]
    torch.testing.assert_close(hidden, expected)
    ours = torch.autograd.grad((weight * hidden).sum(), [x, *layer.parameters()])
    reference = torch.autograd.grad((weight * expected).sum(), [x, *theirs.parameters()])
    for got, wanted in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    memory = None
    for step in range(steps):
        memory = layer.step(layer.input_gates(x[step]), memory)
        torch.testing.assert_close(memory[0], expected[step])


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("size", [1, 7, 200_001])
def test_dropout_drops_its_share_and_keeps_the_mean(share, size):
    torch.manual_seed(0)
    dropout = Dropout(share).train()
    x = torch.ones(size, requires_grad=True)
    dropped = dropout(x)
    kept = dropped.detach()[dropped.detach() != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped.detach())
    if size > 1000:
        assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.005)
        # Neighbours share one draw; they must not share their fate.
        pairs = (dropped.detach()[:-1] == 0) & (dropped.detach()[1:] == 0)
        assert pairs.float().mean().item() == pytest.approx(share**2, abs=0.005)
    assert torch.equal(dropout.eval()(x), x)
