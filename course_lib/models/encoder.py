r"""A small encoder of the BERT type: it reads a whole sentence at once and answers one question about it.

Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762), sections 3.1 to 3.5, the left half of its figure 1;
Devlin et al. 2019, "BERT" (arXiv 1810.04805), for what is different: learned positions, GELU, a masked word to predict.

====================================  ======================================================================
paper                                 here
====================================  ======================================================================
:math:`d_{model}, N, h, d_{ff}`       ``width``, ``layers``, ``heads``, ``hidden``
:math:`d_k = d_v`                     ``SelfAttention.head_dim``
:math:`W^Q, W^K, W^V, W^O`            ``query``, ``key``, ``value``, ``output``: linear layers, all heads together
:math:`W_1, W_2`                      ``Block.up``, ``Block.down``
:math:`LayerNorm(x + Sublayer(x))`    the two lines of ``Block.forward`` ("post-norm", as in both papers)
====================================  ======================================================================

.. math:: Attention(Q, K, V) = softmax(Q K^T / \sqrt{d_k})\, V

Initial weights are normal with standard deviation 0.02 and biases zero, as in BERT's code; with PyTorch's larger ones
it learns more slowly, and less of it can be pruned. Left out: dropout, segment embeddings, the pooler. Every step is a
layer with a name, or a plain function, so that layers can be found, replaced and pruned by name, and ``torch.fx`` can
trace the model. Heads and hidden units may be removed: ``num_heads * head_dim`` and the outputs of ``up`` do not depend
on the width.

``data.text`` has sentences for it, and settings to learn them with.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from course_lib.data.text import MASK, PADDING
from course_lib.device import seeded


class SelfAttention(nn.Module):
    """Every position looks at every position that is present, with several heads (section 3.2).

    Attributes:
        query, key, value: from the width to ``num_heads * head_dim``, head after head.
        output: back to the width.
        num_heads, head_dim: how the columns in between are to be read.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """From ``states`` (N, L, E) and ``present`` (N, 1, 1, L), false at padding, to (N, L, E)."""
        query = self._split(self.query(states))  # (N, L, E) -> (N, H, L, D)
        key = self._split(self.key(states))
        value = self._split(self.value(states))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=present)  # (N, H, L, D)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (N, H, L, D) -> (N, L, H · D) -> (N, L, E)

    def _split(self, columns: Tensor) -> Tensor:
        return columns.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)  # (N, L, H · D) -> (N, H, L, D)


class Block(nn.Module):
    """One layer of the encoder: attention, then two linear layers at each position; each adds to what it was given."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """From (N, L, E) to (N, L, E)."""
        states = self.attention_norm(states + self.attention(states, present))
        return self.norm(states + self.down(gelu(self.up(states))))


class Encoder(nn.Module):
    """Reads token numbers and gives one row of logits a sentence, at the masked position.

    The answer is read at the first ``MASK`` of each row; in a row without one, at its first token. Positions that hold
    ``PADDING`` are never looked at: a sentence gets the same logits whatever padding stands behind it.

    Args:
        vocabulary: how many tokens there are, ``PADDING`` and ``MASK`` among them.
        classes: how many answers there are.
        width: numbers that describe a position; a multiple of ``heads``.
        layers: how many blocks.
        heads: of the attention in each block.
        hidden: units between ``up`` and ``down`` in each block; ``None``: twice the width (four times in the papers).
        max_length: the longest sentence, in tokens.
        seed: of the initial weights.

    Shapes: token numbers (N, L), int64 -> logits (N, classes), for any L up to ``max_length``.

    Raises:
        ValueError: a size below 1, a vocabulary without a word, or a width that the heads cannot share.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        max_length: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        _check_sizes(vocabulary, classes=classes, width=width, layers=layers, hidden=hidden, max_length=max_length)
        if heads < 1 or width % heads:
            raise ValueError(f"heads is {heads} and width {width}; expected a width that is a multiple of the heads")
        self.max_length = max_length
        with seeded(seed):
            self.token = nn.Embedding(vocabulary, width)
            self.position = nn.Embedding(max_length, width)
            self.embedding_norm = nn.LayerNorm(width)
            self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
            self.classifier = nn.Linear(width, classes)
            self.apply(_initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (N, C) of ``tokens`` (N, L).

        Raises:
            ValueError: ``tokens`` is not two-dimensional, or too long.
            TypeError: ``tokens`` holds no integers.
        """
        if isinstance(tokens, Tensor):  # torch.fx sends a stand-in through, which has nothing to be checked
            _check_tokens(tokens, self.max_length)
        present = (tokens != PADDING)[:, None, None]  # (N, 1, 1, L), for every head and every position that looks
        places = torch.ones_like(tokens).cumsum(1) - 1  # (N, L): 0, 1, 2, ... in every row
        states = self.embedding_norm(self.token(tokens) + self.position(places))  # (N, L, E)
        for block in self.blocks:
            states = block(states, present)
        masked = (tokens == MASK).int().argmax(1)  # (N,): where the first mask stands; 0 without one
        answer = torch.take_along_dim(states, masked[:, None, None], dim=1).squeeze(1)  # (N, L, E) -> (N, E)
        return self.classifier(answer)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def _check_sizes(vocabulary: int, **sizes: int) -> None:
    if vocabulary < 3:
        raise ValueError(f"vocabulary is {vocabulary}; expected 3 or more: {PADDING} is padding and {MASK} the mask")
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")


def _check_tokens(tokens: Tensor, max_length: int) -> None:
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens are {tokens.dtype}; expected token numbers, torch.int64")
    if tokens.dim() != 2 or not 1 <= tokens.shape[1] <= max_length:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; expected (N, L) with L from 1 to {max_length}")
