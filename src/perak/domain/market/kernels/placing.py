"""Placing jobs on nodes one after the other, by FGD or by our policy."""

from __future__ import annotations

import numpy as np
from numba import njit

FGD, OURS = 0, 1


@njit(cache=True)
def fragment(cpu, gpus, count, t_cpu, t_milli, t_gpus, t_freq):
    """What of a node's free GPU shares the typical jobs could not use, in expectation, in thousandths."""
    total = 0.0
    for g in range(count):
        total += gpus[g]
    if total == 0.0:
        return 0.0
    lost = 0.0
    for i in range(len(t_cpu)):
        if t_milli[i] == 0 or t_cpu[i] > cpu:
            lost += t_freq[i] * total  # Jobs without GPUs, or without enough CPU, use none of them.
            continue
        fits, small = 0, 0.0
        for g in range(count):
            if gpus[g] >= t_milli[i]:
                fits += 1
            else:
                small += gpus[g]
        lost += t_freq[i] * (small if fits >= t_gpus[i] else total)
    return lost


@njit(cache=True)
def place_all(
    cpu,
    memory,
    gpus,
    count,
    j_cpu,
    j_memory,
    j_milli,
    j_gpus,
    j_type,
    types,
    t_cpu,
    t_milli,
    t_gpus,
    t_freq,
    policy,
    stop,
    weights,
):
    """Place jobs in order until `stop` GPU thousandths have arrived: (GPU thousandths placed, jobs that
    failed).

    `cpu`, `memory` and `gpus` (nodes by GPUS_MAX, of which `count` are there) are used up. Scores are kept
    by node
    and type of job, as a placement changes those of one node alone. `weights`: of our policy.
    """
    nodes = len(cpu)
    # NaN: not known. -inf: does not fit.
    score = np.full((nodes, types), np.nan)
    where = np.full((nodes, types), -1, np.int64)
    now = np.full(nodes, np.nan)
    placed, arrived, failed = 0, 0, 0
    left = np.empty(gpus.shape[1], np.int64)
    for j in range(len(j_cpu)):
        ask = j_milli[j] * j_gpus[j]
        if arrived + ask > stop:
            break
        arrived += ask
        kind = j_type[j]
        best, chosen = -np.inf, -1
        for n in range(nodes):
            if cpu[n] < j_cpu[j] or memory[n] < j_memory[j]:
                continue
            s = score[n, kind]
            if np.isnan(s):
                if np.isnan(now[n]):
                    now[n] = fragment(cpu[n], gpus[n], count[n], t_cpu, t_milli, t_gpus, t_freq)
                s, at = _score(
                    n,
                    cpu,
                    gpus,
                    count,
                    j_cpu[j],
                    j_milli[j],
                    j_gpus[j],
                    now[n],
                    t_cpu,
                    t_milli,
                    t_gpus,
                    t_freq,
                    left,
                    policy,
                    weights,
                )
                score[n, kind], where[n, kind] = s, at
            if s == -np.inf:
                continue
            if s > best:
                best, chosen = s, n  # Of equals the first: nodes come in the caller's order.
        if chosen < 0:
            failed += 1
            continue
        cpu[chosen] -= j_cpu[j]
        memory[chosen] -= j_memory[j]
        if ask > 0:
            if j_milli[j] < 1000:
                gpus[chosen, where[chosen, kind]] -= j_milli[j]
            else:
                need = j_gpus[j]
                for g in range(count[chosen]):
                    if need > 0 and gpus[chosen, g] >= j_milli[j]:
                        gpus[chosen, g] -= j_milli[j]
                        need -= 1
        score[chosen] = np.nan
        now[chosen] = np.nan
        placed += ask
    return placed, failed, arrived


@njit(cache=True)
def _score(
    n, cpu, gpus, count, j_cpu, j_milli, j_gpus, before, t_cpu, t_milli, t_gpus, t_freq, left, policy, weights
):
    """(score of node n for a job, the GPU that a share of one goes to)."""
    fits = 0
    for g in range(count[n]):
        left[g] = gpus[n, g]
        if gpus[n, g] >= j_milli:
            fits += 1
    if j_gpus > 0 and fits < j_gpus:
        return -np.inf, -1
    rest = cpu[n] - j_cpu
    if j_gpus == 1 and j_milli < 1000:
        best, at = -np.inf, -1
        for g in range(count[n]):
            if gpus[n, g] < j_milli:
                continue
            same = False
            for h in range(g):
                same = same or gpus[n, h] == gpus[n, g]
            if same:
                continue
            left[g] -= j_milli
            s = _worth(
                before,
                rest,
                left,
                gpus,
                n,
                count[n],
                t_cpu,
                t_milli,
                t_gpus,
                t_freq,
                policy,
                weights,
                j_milli,
            )
            left[g] += j_milli
            if s > best:
                best, at = s, g
        return best, at
    need = j_gpus
    for g in range(count[n]):
        if need > 0 and left[g] >= j_milli:
            left[g] -= j_milli
            need -= 1
    return _worth(
        before,
        rest,
        left,
        gpus,
        n,
        count[n],
        t_cpu,
        t_milli,
        t_gpus,
        t_freq,
        policy,
        weights,
        j_milli * j_gpus,
    ), -1


@njit(cache=True)
def _worth(before, rest, left, gpus, n, count, t_cpu, t_milli, t_gpus, t_freq, policy, weights, ask):
    """How good the node would be with the job on it, by the policy; higher is better."""
    after = fragment(rest, left, count, t_cpu, t_milli, t_gpus, t_freq)
    if policy == FGD:
        return float(int(100.0 / (1.0 + np.exp(-(before - after) / 1000.0))))
    # The gradient, exactly; towards nodes that are full; and with the CPU that free GPUs will want.
    free = 0.0
    for g in range(count):
        free += left[g]
    starved = max(0.0, free / 1000.0 * weights[1] - rest)
    return (before - after) / 1000.0 - weights[0] * free / 1000.0 - weights[2] * starved / 1000.0
