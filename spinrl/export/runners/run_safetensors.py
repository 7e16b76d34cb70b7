"""Act with the policy in this folder. Needs torch; spinrl is not needed.

    python run_safetensors.py example.json                 # greedy actions and control values, a line each
    python run_safetensors.py example.json --sample 7      # sampled, with a seed

From Python:

    from run_safetensors import Policy
    action, control, logits = Policy().act(observations)

The networks are written out below in plain torch: names of weights are those in policy.safetensors, and card.json says
under "network" which of them it is.
"""

import json
import math
from pathlib import Path

import torch
from torch.nn import functional
from torch_policy import TorchPolicy, main

HERE = Path(__file__).resolve().parent
DTYPES = {"F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


def read_safetensors(path):
    """Tensors by name: 8 bytes of length, a JSON header, raw numbers. Nothing in the file is run."""
    content = bytearray(Path(path).read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            values = torch.frombuffer(content[begin + first : begin + last], dtype=DTYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors


class Policy(TorchPolicy):
    """The network from its weights; see `TorchPolicy`."""

    def __init__(self, folder=HERE):
        super().__init__(folder)
        self.weights = read_safetensors(self.folder / "policy.safetensors")
        nvec = torch.tensor(self.card["nvec"])
        self.exists = torch.arange(int(nvec.max())) < nvec[:, None]  # (N, K)

    def decide(self, observation, noise, allowed):
        w, policy = self.weights, self.card["network"]["policy"]
        action, logits = self._decide(policy, "policy", observation, noise, allowed & self.exists)
        possible = (logits > -math.inf).any(-1)  # (B, N); not where numbers have overflowed
        control = w["controls"][torch.arange(len(self.card["nvec"])), action]
        return torch.where(possible, action, -1), torch.where(possible, control, math.nan), logits

    def _decide(self, policy, at, observation, noise, allowed):
        kind = policy["kind"]
        if kind == "autoregressive":
            return self._in_turn(policy, at, observation, noise, allowed)
        if kind == "filtered":
            return self._likely_and_best(policy, at, observation, allowed)
        if kind == "best_of_samples":
            return self._best_of_samples(policy, at, observation, noise, allowed)
        logits = self._forbid(self._independent_logits(policy, at, observation), allowed)
        return (logits if noise is None else logits + noise).argmax(-1), logits

    def _forbid(self, logits, allowed):
        return logits.masked_fill(~allowed, -math.inf)

    def _standard(self, observation, at):
        """Observations in the standard units of the network at `at`, where it was trained on such."""
        mean, scale = (self.weights.get(f"{at}.standardizer.{name}") for name in ("mean", "scale"))
        limit = self.card["network"]["limit"]
        return observation if mean is None else ((observation - mean) * scale).clamp(-limit, limit)

    def _linear(self, x, at):
        return functional.linear(x, self.weights[f"{at}.weight"], self.weights[f"{at}.bias"])

    def _heads(self, at, x):
        """(N, B, d) → (B, N, K), one head for each sub-action."""
        w = self.weights
        if f"{at}.hidden_weight" in w:
            x = functional.gelu(torch.baddbmm(w[f"{at}.hidden_bias"], x, w[f"{at}.hidden_weight"]))
        return torch.baddbmm(w[f"{at}.bias"], x, w[f"{at}.weight"]).transpose(0, 1)

    def _independent_logits(self, policy, at, observation):
        if policy["kind"] == "factored":
            x = self._standard(observation, at)
            for layer in policy["layers"]:
                x = functional.relu(self._linear(x, f"{at}.trunk.{layer}"))
            return self._heads(f"{at}.heads", x.expand(self.exists.shape[0], -1, -1))
        return self._heads(f"{at}.heads", self._slots(policy, f"{at}.slots", observation).transpose(0, 1))

    def _slots(self, policy, at, observation):
        """Slot embeddings (B, N, d) of SAINT and SPIN."""
        w, batch = self.weights, len(observation)
        slots, heads = w[f"{at}.slots"], policy["num_heads"]
        num_slots, width = slots.shape
        state = functional.gelu(self._linear(self._standard(observation, at), f"{at}.state_encoder.0"))
        state = self._linear(state, f"{at}.state_encoder.2")
        x = torch.cat([state.view(batch, -1, width), slots.expand(batch, -1, -1)], 1)  # (B, M+N, d)
        for layer in range(policy["num_blocks"]):
            block = f"{at}.blocks.{layer}"
            projected = self._linear(functional.layer_norm(x, (width,)), block)  # (B, M+N, 3d)
            query, key, value = projected.view(batch, x.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = (query @ key.transpose(-1, -2)).softmax(-1) @ value  # (B, H, M+N, d/H); scores come scaled
            x = x + self._linear(mixed.transpose(1, 2).flatten(2), f"{block}.out")
            normed = functional.layer_norm(x, (width,), w[f"{block}.norm_ffn.weight"], w[f"{block}.norm_ffn.bias"])
            x = x + self._linear(functional.gelu(self._linear(normed, f"{block}.ffn_in")), f"{block}.ffn_out")
        return x[:, -num_slots:]

    def _in_turn(self, policy, at, observation, noise, allowed):
        """The autoregressive policy: an LSTM over sub-actions, each given the choice before."""
        w = self.weights
        state = functional.relu(self._linear(self._standard(observation, at), f"{at}.state_embedding"))
        num_slots, choices = self.exists.shape
        previous = torch.full((len(observation),), choices)
        memories = [None] * policy["layers"]
        actions, logits = [], []
        for slot in range(num_slots):
            x = torch.cat([state, w[f"{at}.action_embedding"][previous]], -1)
            for layer in range(policy["layers"]):
                lstm = f"{at}.lstm.{layer}"
                gates = functional.linear(x, w[f"{lstm}.weight_ih"], w[f"{lstm}.bias_ih"] + w[f"{lstm}.bias_hh"])
                if memories[layer] is not None:
                    gates = gates + functional.linear(memories[layer][0], w[f"{lstm}.weight_hh"])
                entered, forgotten, candidate, output = gates.chunk(4, -1)
                cell = entered.sigmoid() * candidate.tanh()
                if memories[layer] is not None:
                    cell = cell + forgotten.sigmoid() * memories[layer][1]
                x = output.sigmoid() * cell.tanh()
                memories[layer] = (x, cell)
            one = torch.addmm(w[f"{at}.heads.bias"][slot], x, w[f"{at}.heads.weight"][slot])
            logits.append(self._forbid(one, allowed[:, slot]))
            previous = (logits[-1] if noise is None else logits[-1] + noise[:, slot]).argmax(-1)
            actions.append(previous)
        return torch.stack(actions, 1), torch.stack(logits, 1)

    def _critics(self, at, observation):
        """The outputs of every critic, (E, B, Σm_i)."""
        w, layer = self.weights, 0
        x = self._standard(observation, at).expand(len(w[f"{at}.weights.0"]), -1, -1)
        while f"{at}.weights.{layer}" in w:
            x = x if layer == 0 else functional.relu(x)
            x = torch.baddbmm(w[f"{at}.biases.{layer}"], x, w[f"{at}.weights.{layer}"])
            layer += 1
        return x

    def _offsets(self):
        counts = torch.tensor(self.card["nvec"])
        return counts.cumsum(0) - counts

    def _likely_and_best(self, policy, at, observation, allowed):
        """BCQ: of the choices that imitation finds likely enough, the one of the largest value."""
        log_probs = self._independent_logits(policy["policy"], f"{at}.policy", observation)
        log_probs = self._forbid(self._forbid(log_probs, self.exists).log_softmax(-1), allowed)
        likely = log_probs >= math.log(policy["threshold"]) + log_probs.amax(-1, keepdim=True)
        index = (self._offsets()[:, None] + torch.arange(self.exists.shape[1])) * self.exists
        values = self._critics(f"{at}.qvalue", observation)[..., index].amin(0)
        logits = self._forbid(values, likely & allowed)
        return logits.argmax(-1), logits

    def _best_of_samples(self, policy, at, observation, noise, allowed):
        """BCQ with dependent sub-actions: of several sampled joint actions the one of the largest value."""
        uniform = torch.zeros(()) if noise is None else (-(-noise).exp()).exp()
        outputs, tiny = self._critics(f"{at}.qvalue", observation), torch.finfo(torch.float32).tiny
        actions, values, logits = [], [], []
        for shift in self.weights[f"{at}.shifts"]:
            shifted = ((uniform + shift) % 1).expand(len(observation), -1, -1)
            gumbel = -(-shifted.clamp_min(tiny).log()).clamp_min(tiny).log()
            action, of_action = self._in_turn(policy["policy"], f"{at}.policy", observation, gumbel, allowed)
            index = (action + self._offsets()).expand(len(outputs), -1, -1)
            values.append(outputs.gather(-1, index).sum(-1).amin(0))
            actions.append(action)
            logits.append(of_action)
        best, rows = torch.stack(values).argmax(0), torch.arange(len(observation))
        return torch.stack(actions)[best, rows], torch.stack(logits)[best, rows]


if __name__ == "__main__":
    main(Policy, __doc__)
