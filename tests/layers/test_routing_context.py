"""Rows and their names: what a layer is told, when, and what it may keep."""

import copy
import pickle
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polylect.layers.context import RoutingContext, RowGroups
from polylect.layers.tokens import Tokens


def test_rows_have_the_names_of_the_open_route():
    context = RoutingContext()
    with context.route(["de", "", None, "fr"]):
        assert context.rows(4) == ("de", "", "", "fr")


def test_beams_repeat_each_row_in_place():
    context = RoutingContext()
    with context.route(["de", "fr"]):
        assert context.rows(6) == ("de", "de", "de", "fr", "fr", "fr")


def test_outside_a_route_rows_are_refused():
    context = RoutingContext()
    with pytest.raises(RuntimeError, match=r"call the backbone inside strategy.routing\(batch\)"):
        context.rows(2)


def test_a_route_closes_when_its_body_fails():
    context = RoutingContext()
    with pytest.raises(KeyError), context.route(["de"]):
        raise KeyError
    with context.route(["fr"]):
        assert context.rows(1) == ("fr",)


def test_routes_do_not_nest():
    context = RoutingContext()
    with context.route(["de"]):
        with pytest.raises(RuntimeError, match="do not nest"), context.route(["fr"]):
            pass
        assert context.rows(1) == ("de",)


def in_a_thread(act):
    """Begins to act in another thread; what it returns or raises comes out of the list."""
    results = []

    def run():
        try:
            results.append(act())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def test_another_thread_waits_until_the_route_is_closed():
    context = RoutingContext()

    def other():
        with context.route(["fr", "fr"]):
            return context.rows(2)

    with context.route(["de"]):
        context.losses["ffn"] = 1.0
        thread, actual = in_a_thread(other)
        thread.join(0.05)
        assert (actual, context.rows(1), context.losses) == ([], ("de",), {"ffn": 1.0})
    thread.join(5)
    assert actual == [("fr", "fr")]


def test_what_is_locked_nests_and_routes_open_in_it():
    context = RoutingContext()

    def other():
        with context.lock():
            return "came in"

    with context.lock(), context.lock():
        thread, actual = in_a_thread(other)
        with context.route(["de"]):
            assert context.rows(1) == ("de",)
        thread.join(0.05)
        assert actual == []
    thread.join(5)
    assert actual == ["came in"]


def test_nothing_is_locked_within_a_route_of_the_same_thread():
    context = RoutingContext()
    with context.route(["de"]):
        with pytest.raises(RuntimeError, match="a route is open already"), context.lock():
            pass
        assert context.rows(1) == ("de",)
    with context.lock():
        pass


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_a_lock_of_its_own(copied):
    context = RoutingContext()
    context.adapters["de"] = 2
    with context.lock():
        twin = copied(context)
        thread, actual = in_a_thread(lambda: twin.lock().__enter__())
        thread.join(5)
    assert actual == [None]
    assert twin.adapters == {"de": 2}


@pytest.mark.parametrize("names", [[], "de"])
def test_a_route_needs_one_name_per_row(names):
    with pytest.raises(ValueError, match="one name per row"), RoutingContext().route(names):
        pass


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_batch_of_another_size_is_refused(n):
    context = RoutingContext()
    with context.route(["de", "fr"]), pytest.raises(ValueError, match=f"2 rows .* received {n}"):
        context.rows(n)


@given(st.lists(st.sampled_from(["", "de", "fr", "ta"]), min_size=1, max_size=24))
def test_groups_are_the_rows_again(names):
    groups = RowGroups.from_names(tuple(names))
    assert [name for name in groups.names for _ in range(groups.rows)] == names
    assert set(groups.distinct) == set(names) - {""}
    assert len(groups.distinct) == len(set(groups.distinct))


def test_groups_are_as_large_as_the_runs_allow():
    groups = RowGroups.from_names(("a",) * 4 + ("b",) * 6 + ("",) * 2)
    assert (groups.rows, groups.names) == (2, ("a", "a", "b", "b", "b", ""))
    assert RowGroups.from_names(("a", "b", "a")).rows == 1


def test_memory_lasts_as_long_as_the_route():
    context = RoutingContext()
    made = []

    def make():
        made.append(len(made))
        return made[-1]

    with context.route(["de"]):
        assert [context.remember("key", make), context.remember("key", make)] == [0, 0]
    with context.route(["de"]):
        assert context.remember("key", make) == 1
    assert [context.remember("key", make), context.remember("key", make)] == [2, 3]


def test_losses_stay_until_the_next_route():
    context = RoutingContext()
    with context.route(["de"]):
        context.losses["ffn"] = 1.0
    assert context.losses == {"ffn": 1.0}
    with context.route(["de"]):
        assert context.losses == {}


def test_a_recomputation_sees_the_route_of_its_forward():
    context = RoutingContext()
    with context.route(["de", "fr"]):
        _, again = context.checkpointing()
    with again:
        assert context.rows(2) == ("de", "fr")
    with pytest.raises(RuntimeError, match="call the backbone"):
        context.rows(2)


def test_a_recomputation_sees_the_tokens_and_prompts_of_its_forward():
    context, mask = RoutingContext(), torch.ones(2, 3, dtype=torch.long)
    with context.route(["de", "fr"], mask, torch.tensor([1, 2])):
        assert context.tokens is None
        tokens = context.tokens = Tokens.from_mask(mask, context.prompt_lengths(2))
        _, again = context.checkpointing()
    assert context.tokens is None
    with again:
        assert context.tokens is tokens
        assert context.prompt_lengths(2).tolist() == [1, 2]
    assert context.tokens is None


def test_beams_repeat_the_length_of_each_prompt():
    context = RoutingContext()
    with context.route(["de", "fr"], None, torch.tensor([4, 7])):
        assert context.prompt_lengths(6).tolist() == [4, 4, 4, 7, 7, 7]
    with context.route(["de"]), pytest.raises(ValueError, match="the route has no prompt_lengths"):
        context.prompt_lengths(1)
    with pytest.raises(RuntimeError, match="call the backbone"):
        context.prompt_lengths(1)


def test_a_recomputation_inside_its_own_route_is_no_nesting():
    context = RoutingContext()
    with context.route(["de"]):
        _, again = context.checkpointing()
        with again:
            assert context.rows(1) == ("de",)
        assert context.rows(1) == ("de",)


def test_a_recomputation_inside_another_route_is_refused():
    context = RoutingContext()
    with context.route(["de"]):
        _, again = context.checkpointing()
    with context.route(["fr"]), pytest.raises(RuntimeError, match="another batch"), again:
        pass
