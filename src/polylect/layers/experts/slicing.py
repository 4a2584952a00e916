"""Partitions the neurons of a feed-forward network into slices of equal size."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.did_you_mean import check_known

SLICINGS = ("contiguous", "interleaved", "random", "clustered")


def neuron_order(
    slicing: str,
    neurons: int,
    slices: int,
    *,
    activations: Float[Tensor, "neurons features"] | None = None,
    seed: int = 0,
) -> Int[Tensor, " neurons"] | None:
    """Return the neurons of the first slice, then those of the second, and so on.

    None stands for their own order.

    Args:
        slicing: "contiguous", "interleaved" (each slice takes every so manieth), "random", or
            "clustered" (neurons that are active together).
        activations: of "clustered": how active each neuron is in each of some circumstances.
        seed: of "random".

    Raises:
        ValueError: an unknown slicing, neurons that the slices cannot share evenly, or no
            activations to cluster by.
    """
    check_known("slicing", slicing, SLICINGS)
    if neurons % slices:
        raise ValueError(f"{slices} experts cannot share {neurons} neurons evenly")
    if slicing == "contiguous":
        return None
    if slicing == "interleaved":
        return torch.arange(neurons).view(-1, slices).T.flatten()
    if slicing == "random":
        return torch.randperm(neurons, generator=torch.Generator().manual_seed(seed))
    if activations is None or len(activations) != neurons:
        raise ValueError(f"slicing 'clustered' needs activations of the {neurons} neurons")
    return balanced_clusters(activations, slices).sort(stable=True).indices


def balanced_clusters(
    points: Float[Tensor, "points features"], clusters: int, rounds: int = 30
) -> Int[Tensor, " points"]:
    """Return the cluster of each point: k-means with clusters of one size (as MoEfication,
    arXiv 2110.01786, which clusters weights).

    Deterministic: it begins with points far from each other, not with random ones.
    """
    points = points.double().cpu()
    centres = _distant_points(points, clusters)
    best, least = torch.zeros(len(points), dtype=torch.long), float("inf")
    for _ in range(rounds):
        distances = torch.cdist(points, centres).square()
        assigned = _assign_evenly(distances)
        cost = float(distances.gather(1, assigned[:, None]).sum())
        if cost >= least:
            break
        best, least = assigned, cost
        centres = torch.stack([points[assigned == cluster].mean(0) for cluster in range(clusters)])
    return best


def _distant_points(points: Tensor, count: int) -> Tensor:
    """Return the point farthest from the mean, then each time the farthest from those chosen."""
    centres: list[int] = []
    distances = (points - points.mean(0)).square().sum(1)
    for _ in range(count):
        centres.append(int(distances.argmax()))
        to_last = (points - points[centres[-1]]).square().sum(1)
        distances = to_last if len(centres) == 1 else torch.minimum(distances, to_last)
    return points[centres]


def _assign_evenly(distances: Tensor) -> Tensor:
    """Gives each point its nearest cluster with room; of too many, the nearest points go first."""
    points, clusters = distances.shape
    distances = distances.clone()
    cluster_of = torch.full((points,), -1)
    room = [points // clusters] * clusters
    while (cluster_of < 0).any():
        unassigned = (cluster_of < 0).nonzero()[:, 0]
        nearest = distances[unassigned].argmin(1)
        for cluster in nearest.unique().tolist():
            members = unassigned[nearest == cluster]
            order = distances[members, cluster].argsort(stable=True)[: room[cluster]]
            cluster_of[members[order]] = cluster
            room[cluster] -= len(order)
            if not room[cluster]:
                distances[:, cluster] = float("inf")
    return cluster_of
