"""Placing jobs on nodes one after the other, by FGD or by our policy.

CPU in thousandths of a core; GPU shares in thousandths; memory in any one unit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.compiling import inner

FGD, OURS = 0, 1


class Nodes(NamedTuple):
    """What is free on nodes. `gpus`: [node, GPU], of which `present` are there."""

    cpu: Ints
    memory: Ints
    gpus: Ints
    present: Ints


class Pods(NamedTuple):
    """Jobs in order of arrival: `gpus` GPUs, `milli` of each. `kind`: alike for those that want the same."""

    cpu: Ints
    memory: Ints
    milli: Ints
    gpus: Ints
    kind: Ints


class Scores(NamedTuple):
    """[node, kind of job]: the score (NaN: not known, -inf: does not fit) and the GPU that a share goes to;
    by node, its fragment now."""

    score: Floats
    where: Ints
    now: Floats


@njit(cache=True)
def fragment(cpu, gpus, count, usual):
    """What of a node's free GPU shares the usual jobs could not use, in expectation, in thousandths."""
    total = 0.0
    for g in range(count):
        total += gpus[g]
    if total == 0.0:
        return 0.0
    lost = 0.0
    wants_cpu, wants_milli, wants_gpus, frequency = usual
    for i in range(len(wants_cpu)):
        if wants_milli[i] == 0 or wants_cpu[i] > cpu:
            lost += frequency[i] * total  # Jobs without GPUs, or without enough CPU, use none of them.
            continue
        fits, small = 0, 0.0
        for g in range(count):
            if gpus[g] >= wants_milli[i]:
                fits += 1
            else:
                small += gpus[g]
        lost += frequency[i] * (small if fits >= wants_gpus[i] else total)
    return lost


@njit(cache=True)
def place_all(nodes, pods, kinds, usual, policy, stop, weights):
    """Place jobs in order until `stop` GPU thousandths have arrived.

    (GPU thousandths placed, jobs that failed, GPU thousandths arrived.) `nodes` are used up. Scores are
    kept by node and kind of job, as a placement changes those of one node alone. `weights`: of our policy.
    """
    count = len(nodes.cpu)
    known, where = np.full((count, kinds), np.nan), np.full((count, kinds), -1, np.int64)
    scores = Scores(known, where, np.full(count, np.nan))
    placed, arrived, failed = 0, 0, 0
    left = np.empty(nodes.gpus.shape[1], np.int64)
    cpu, memory, score = nodes.cpu, nodes.memory, scores.score
    for j in range(len(pods.cpu)):
        ask = pods.milli[j] * pods.gpus[j]
        if arrived + ask > stop:
            break
        arrived += ask
        best, chosen = -np.inf, -1
        wants_cpu, wants_memory, kind = pods.cpu[j], pods.memory[j], pods.kind[j]
        for n in range(count):
            if cpu[n] < wants_cpu or memory[n] < wants_memory:
                continue
            s = score[n, kind]
            if np.isnan(s):
                s = _score(n, j, nodes, pods, usual, scores, left, policy, weights)
            if s > best:
                best, chosen = s, n  # Of equals the first: nodes come in the caller's order.
        if chosen < 0:
            failed += 1
            continue
        _place(chosen, j, nodes, pods, scores)
        placed += ask
    return placed, failed, arrived


@inner()
def _place(n, j, nodes, pods, scores):
    """Take job j's part of node n."""
    nodes.cpu[n] -= pods.cpu[j]
    nodes.memory[n] -= pods.memory[j]
    if pods.gpus[j] == 1 and pods.milli[j] < 1000:
        nodes.gpus[n, scores.where[n, pods.kind[j]]] -= pods.milli[j]
    else:
        _take(nodes.gpus[n], nodes.present[n], pods.milli[j], pods.gpus[j])
    scores.score[n] = np.nan
    scores.now[n] = np.nan


@inner()
def _take(free, count, milli, need):
    """Take `milli` of each of the first `need` GPUs that have as much."""
    for g in range(count):
        if need > 0 and free[g] >= milli:
            free[g] -= milli
            need -= 1


@inner()
def _score(n, j, nodes, pods, usual, scores, left, policy, weights):
    """The score of node n for job j, which is kept with the GPU that a share of one goes to."""
    count, milli = nodes.present[n], pods.milli[j]
    if np.isnan(scores.now[n]):
        scores.now[n] = fragment(nodes.cpu[n], nodes.gpus[n], count, usual)
    fits = 0
    for g in range(count):
        left[g] = nodes.gpus[n, g]
        if left[g] >= milli:
            fits += 1
    before, rest = scores.now[n], nodes.cpu[n] - pods.cpu[j]
    best, at = -np.inf, -1
    if pods.gpus[j] == 1 and milli < 1000:
        for g in range(count):
            same = left[g] < milli
            for h in range(g):
                same = same or left[h] == left[g]
            if same:
                continue
            left[g] -= milli
            s = _worth(before, rest, left, count, usual, policy, weights)
            left[g] += milli
            if s > best:
                best, at = s, g
    elif fits >= pods.gpus[j]:
        _take(left, count, milli, pods.gpus[j])
        best = _worth(before, rest, left, count, usual, policy, weights)
    scores.score[n, pods.kind[j]], scores.where[n, pods.kind[j]] = best, at
    return best


@inner()
def _worth(before, rest, left, count, usual, policy, weights):
    """How good the node would be with the job on it, by the policy; higher is better."""
    after = fragment(rest, left, count, usual)
    if policy == FGD:
        return float(int(100.0 / (1.0 + np.exp(-(before - after) / 1000.0))))
    # The gradient, exactly; towards nodes that are full; and with the CPU that free GPUs will want.
    free = 0.0
    for g in range(count):
        free += left[g]
    starved = max(0.0, free / 1000.0 * weights[1] - rest)
    return (before - after) / 1000.0 - weights[0] * free / 1000.0 - weights[2] * starved / 1000.0
