"""What the code of LANDeRMT's authors does in detection, each where the scores are known by hand.

The model is a table: neuron i is 1 where token i stands, and its column says what comes next. So
|h dL/dh| of neuron i at its tokens is |dL/dh|, and 0 elsewhere.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from polylect.data.batch import Example, collate
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.layers.neurons.categories import categorise, choose_layers
from polylect.run.awareness import add_batch

SURE = 100.0  # a logit beside zeros
PAD = 0


class Table(nn.Module):
    """After token i comes i + 1, with certainty; after padding and the last token, anything."""

    def __init__(self, tokens: int, sure: float = SURE) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="table")
        self.down = nn.Linear(tokens, tokens, bias=False)
        following = torch.zeros(tokens, tokens)
        for token in range(1, tokens - 1):
            following[token + 1, token] = sure
        self.down.weight.data = following

    def forward(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        hot = functional.one_hot(input_ids, self.down.in_features).float()
        return SimpleNamespace(logits=self.down(hot))


def scores(
    model: Table, texts: list[list[int]], by_sentence: bool = False, **labels: bool
) -> Tensor:
    """Sums of |h dL/dh| by token, over all texts in one batch."""
    meter = AwarenessMeter([model.down], 1, by_sentence=by_sentence)
    batch = collate([Example([], ids, "en") for ids in texts], PAD, "right")
    add_batch(meter, model, 0, batch, **labels)
    tokens = torch.tensor(list(meter.tokens().values()))
    both = torch.stack([side[0, 0] for side in meter.awareness().values()])
    return (both if by_sentence else both * tokens).sum(0).float()


def test_a_second_shift_of_the_labels_asks_for_the_token_after_the_next() -> None:
    model = Table(5)
    assert torch.equal(scores(model, [[1, 2, 3, 4]]), torch.zeros(5))  # every next token is right
    # Asked for 3, token 1 says 2: its gradient is the logit. Token 3 is asked for nothing.
    expected = torch.tensor([0.0, SURE, SURE, 0.0, 0.0])
    assert torch.equal(scores(model, [[1, 2, 3, 4]], label_shift=True), expected)


def test_padding_that_is_learned_makes_the_last_tokens_of_short_sentences_aware() -> None:
    model = Table(5)
    texts = [[1, 2, 3, 4], [1, 2]]
    assert torch.equal(scores(model, texts), torch.zeros(5))
    # Token 2 of the short one is asked for padding and says 3; padding itself has no column.
    expected = torch.tensor([0.0, 0.0, SURE, 0.0, 0.0])
    assert torch.equal(scores(model, texts, pad_labels=True), expected)


def test_in_a_sum_over_sentences_a_token_of_a_short_one_weighs_more() -> None:
    model = Table(5)
    texts = [[1, 3], [2, 4, 2, 4]]  # after 1 and twice after 2 the model is wrong for certain
    by_token, by_sentence = torch.zeros(5), torch.zeros(5)
    by_token[1], by_token[2] = SURE, 2 * SURE
    # Of the mean loss (over 1 and 3 targets) the mean over tokens (2 and 4).
    by_sentence[1], by_sentence[2] = SURE / 1 / 2, 2 * SURE / 3 / 4
    torch.testing.assert_close(scores(model, texts), by_token)
    torch.testing.assert_close(scores(model, texts, by_sentence=True), by_sentence)


def test_a_sum_over_sentences_does_not_depend_on_batches() -> None:
    torch.manual_seed(0)
    model = Table(8, sure=1.0)
    texts = [torch.randint(1, 8, (n,)).tolist() for n in (3, 7, 5, 2)]
    alone = torch.stack([scores(model, [text], by_sentence=True) for text in texts]).sum(0)
    torch.testing.assert_close(scores(model, texts, by_sentence=True), alone)


@pytest.mark.parametrize(
    ("normalised", "owners"), [(True, [1, 1, 0, 0]), (False, [0, 0, 0, 0])], ids=["fixed", "code"]
)
def test_without_normalisation_the_language_of_the_highest_loss_owns_all(
    normalised: bool, owners: list[int]
) -> None:
    loud, quiet = [10.0, 20.0, 30.0, 40.0], [4.0, 3.0, 2.0, 1.0]
    found = categorise(
        torch.tensor([loud, quiet]), rho=0.0, own=1.0, per_language_normalisation=normalised
    )
    assert not found.general.any()
    assert found.specific.sum(0).tolist() == [1] * 4
    assert found.specific.long().argmax(0).tolist() == owners


def test_layers_are_detected_or_written_down() -> None:
    relevance = torch.tensor([[0.1, 0.9, 0.2, 0.5, 0.0], [0.1, 0.8, 0.3, 0.4, 0.0]])
    detected = choose_layers(relevance, 2, "relevant")
    written = choose_layers(relevance, 2, [0, 2, 4])
    assert detected.all(1).nonzero().flatten().tolist() == [1, 3]
    assert written.all(1).nonzero().flatten().tolist() == [0, 2, 4]  # whatever k and D say


def test_rotated_owners_have_the_rows_of_the_language_before() -> None:
    torch.manual_seed(0)
    measured = torch.rand(3, 40)
    found = categorise(measured, rho=0.5, own=1.0)
    placebo = categorise(measured, "rotated", rho=0.5, own=1.0)
    assert torch.equal(placebo.general, found.general)
    for language in range(3):
        assert torch.equal(placebo.specific[(language + 1) % 3], found.specific[language])
