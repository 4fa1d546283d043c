"""From a configuration to its embedding (section 3.2.2 of the paper)."""

from __future__ import annotations

from torch import Tensor, nn

from .seeding import seeded


class MLPEncoder(nn.Module):
    """f_c of the paper for hyper-parameters: one hidden layer. in_dim: length of a configuration as the space encodes
    it. hidden: units of the hidden layer and length of the embedding."""

    def __init__(self, in_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.in_dim = in_dim
        # No last bias: it would shift all scores of a task alike, so its gradient is nothing but rounding noise.
        self.layers = nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden, bias=False))

    @classmethod
    def initial(cls, in_dim: int, seed: int, hidden: int = 64) -> MLPEncoder:
        """Untrained weights that follow from `seed` alone; the global random state is left as it was."""
        with seeded(seed):
            return cls(in_dim, hidden)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: float32 (n, in_dim). Returns (n, hidden). Raises ValueError for another width."""
        if inputs.shape[-1] != self.in_dim:
            raise ValueError(
                f"This configuration encoder expects inputs of {self.in_dim} numbers, got {inputs.shape[-1]}: "
                "it was made for another search space."
            )
        return self.layers(inputs)
