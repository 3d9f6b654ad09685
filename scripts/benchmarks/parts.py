"""The parts of the benchmark: who races whom, and what the tables say."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import limits
from .cases import HAS_THRESHOLD, LABELLED, UNLABELLED, Case, content, model_names, observes_bits
from .command import seconds_to_import, watch
from .loops import bare, ours
from .race import Racer, race
from .rivals import hand_written
from .tables import Row, Table, middle, ratio, timing

BATCH = f"{LABELLED} labelled + {UNLABELLED} unlabelled rows an update"


@dataclass
class Plan:
    """How much is measured, and on what."""

    device: str
    threads: int
    rounds: int
    block: int  # updates
    warm: int  # updates that fit q(y | x) before m2 and m1m2 are compared
    class_threshold: float
    quick: bool

    def case(self, model: str, **options: Any) -> Case:
        """A training of this plan."""
        return Case(model, self.device, self.threads, **options)

    def racer(self, case: Any, loop: Callable[..., None] = ours, share: float = 1.0) -> Racer:
        """A racer whose blocks are `share` as long as the plan says."""
        return Racer(loop, case, max(1, round(share * self.block)))


def m2(plan: Plan) -> list[Table]:
    """M2 on images against a hand-written loop and Pyro."""
    return [_compare(plan, "m2", "M2, 784-500-50, Bernoulli likelihood")]


def m1m2(plan: Plan) -> list[Table]:
    """Stage 2 of M1+M2 against the same two."""
    return [_compare(plan, "m1m2", "stage 2 of M1+M2, 50-500-50, Gaussian likelihood")]


def _compare(plan: Plan, model: str, title: str) -> Table:
    single, half = plan.case(model), plan.case(model, precision="bf16")
    racers = {}
    for t in (0.0, plan.class_threshold) if HAS_THRESHOLD else (0.0,):
        for case, precision in ((single, "float32"), (half, "bf16")):
            name = f"ssl_dgm, {precision}" + (f", class_threshold={t:g}" if t else "")
            racers[name] = plan.racer(replace(case, class_threshold=t, warm=plan.warm if t else 0))
    for case, precision in ((single, "float32"), (half, "bf16")):
        racers[f"ssl_dgm, {precision}, compiled"] = plan.racer(replace(case, compile="always"))
    racers |= {
        "hand-written, float32": plan.racer(single, hand_written),
        "hand-written, bf16": plan.racer(half, hand_written),
        "hand-written, float32, fused Adam, memory kept": plan.racer(single, partial(hand_written, tuned=True)),
        "Pyro, TraceEnum_ELBO, float32": plan.racer(single, partial(hand_written, in_pyro=True)),
    }
    times = race(list(racers.values()), plan.rounds)
    rows = []
    for (name, racer), own in zip(racers.items(), times):
        row = {"loop": name, **timing(own), **ratio("x ours float32", own, times[0])}
        row |= {"x ours bf16": middle(own / times[1])}
        row |= {"unlabelled rows/s": round(UNLABELLED / middle(own)), **_facts(racer, "classes kept")}
        rows.append(row)
    note = (
        f"{content()}; {BATCH}; one seed; {plan.rounds} rounds of {plan.block} updates.\n"
        "'x ours' are ratios of times within a round, above 1 where slower than ours. ssl_dgm is a run's own loop:\n"
        "Lightning, curves, checkpoints. With class_threshold q(y | x) was fitted to the labels of all rows first "
        f"({plan.warm}\nupdates) and kept so, since the classes kept depend on how sure it is."
    )
    return Table(title, rows, note)


def models(plan: Plan) -> list[Table]:
    """Throughput of every model of conf/model, both precisions."""
    rows = []
    for name in model_names():
        racers = [plan.racer(plan.case(name, precision=precision), share=0.5) for precision in ("32", "bf16")]
        times = race(racers, plan.rounds)
        for precision, racer, own in zip(("float32", "bf16"), racers, times):
            row = {"model": name, "observes": "784 pixels" if observes_bits(name) else "50 latents"}
            row |= {"precision": precision, **timing(own), "updates/s": 1 / middle(own)}
            row |= {"unlabelled rows/s": round(UNLABELLED / middle(own))}
            rows.append(row | ratio("x float32", own, times[0]) | _memory(racer))
    return [Table("every model at the settings of budget=paper", rows, f"{BATCH}; one seed")]


def seeds(plan: Plan) -> list[Table]:
    """What a group of seeds costs against as many single ones."""
    rows, sizes = [], (1, 5) if plan.quick else (1, 5, 10)
    for name in ("m2", "m1m2"):
        racers = [plan.racer(plan.case(name, seeds=s), share=1 / s) for s in sizes]
        times = race(racers, plan.rounds)
        for s, racer, own in zip(sizes, racers, times):
            row = {"model": name, "seeds S": s, **timing(own), "ms/update/seed": 1e3 * middle(own) / s}
            row |= ratio("x S single seeds", own, s * times[0])
            row |= {"unlabelled rows/s/seed": round(UNLABELLED / middle(own)), **_memory(racer)}
            rows.append(row)
    return [Table("seeds as one program, float32", rows, f"{BATCH} and seed")]


def scaling(plan: Plan) -> list[Table]:
    """Whether the cost is linear in rows, classes and seeds."""
    rows = []
    small, large = (6_000, 60_000) if plan.quick else (60_000, 600_000)
    rounds = min(plan.rounds, 4)
    for classes in (10, 100):
        for s in (1, 5) if plan.quick else (1, 5, 10):
            cases = [plan.case("m2", seeds=s, classes=classes, rows=n, content="bytes") for n in (small, large)]
            racers = [plan.racer(case, share=5 / classes / s) for case in cases]
            times = race(racers, rounds)
            for case, racer, own in zip(cases, racers, times):
                work = classes * UNLABELLED * s
                row = {"classes K": classes, "seeds S": s, "rows N": case.rows, **timing(own)}
                row |= {"us/(class x row x seed)": 1e6 * middle(own) / work}
                row |= ratio(f"x N={small:,}", own, times[0])
                deal = racer.facts["deal ms"] / 1e3
                row |= {"ms to deal an epoch": 1e3 * deal, "s/epoch": deal + case.epoch * middle(own)}
                rows.append(row | _memory(racer))
    note = f"{BATCH} and seed; an epoch is one pass over N rows of 784 random bytes; {rounds} rounds"
    return [Table("M2, float32: cost in classes, seeds and rows", rows, note)]


def peak(plan: Plan) -> list[Table]:
    """What the machine could do at most, and how much of it an update of M2 uses."""
    rounds = max(2, plan.rounds // 2)
    counts = {p: limits.count(plan.case("m2", precision=p)) for p in limits.TYPES}
    side, size = limits.sizes(plan.device)
    racers: dict[tuple[str, str], Racer] = {("copy", "32"): plan.racer(plan.case("m2"), limits.copy, 0.5)}
    for p, count in counts.items():
        racers["update", p] = plan.racer(plan.case("m2", precision=p), share=0.5)
        for name, shapes in (("square", ((1, side, side, side),)), ("products", count.products)):
            case = limits.Products(shapes, p, plan.device, plan.threads)
            racers[name, p] = plan.racer(case, limits.products, 0.5)
    times = dict(zip(racers, race(list(racers.values()), rounds)))
    flop = {p: times["square", p] / (2 * side**3) for p in counts}  # seconds for one, in every round
    byte = times["copy", "32"] / (2 * size)
    machine = [
        {"what": f"product {side}^3, float32", "GFLOP/s": 1e-9 / middle(flop["32"])},
        {"what": f"product {side}^3, bf16", "GFLOP/s": 1e-9 / middle(flop["bf16"])},
        {"what": f"copy of {size >> 20} MiB, read + written", "GB/s": 1e-9 / middle(byte)},
    ]
    shapes = []
    for (b, m, k, n), often in limits.counted(counts["32"].products).items():
        shape = (b, m, k, n)
        if often * limits.operations(shape) < 0.01 * counts["32"].flops:
            continue
        row: Row = {"m x k x n": f"{f'{b} x ' if b > 1 else ''}{m} x {k} x {n}", "times": often}
        row |= {"MFLOP each": limits.operations(shape) / 1e6}
        row |= {"float32 GFLOP/s": racers["products", "32"].facts[str(shape)]}
        shapes.append(row | {"bf16 GFLOP/s": racers["products", "bf16"].facts.get(str(shape))})
    floors, shares = [], []
    for p, count in counts.items():
        update = times["update", p]
        precision = "float32" if p == "32" else p
        given = {
            f"FLOPs at the peak of {side}^3": (f"{count.flops / 1e9:.3g} GFLOP", count.flops * flop[p]),
            "its matrix products alone": (f"{count.flops / 1e9:.3g} GFLOP", times["products", p]),
            "parameters, Adam's state, rows": (f"{count.compulsory / 1e6:.3g} MB", count.compulsory * byte),
            "all that eager operations move": (f"{count.eager / 1e6:.3g} MB", count.eager * byte),
        }
        for name, (amount, floor) in given.items():
            row = {"precision": precision, "floor": name, "amount": amount, "floor ms": 1e3 * middle(floor)}
            floors.append(row | ratio("share of an update", floor, update))
        row = {"precision": precision, **timing(update), "GFLOP/s": count.flops / middle(update) / 1e9}
        shares.append(row | ratio("of the peak", count.flops * flop[p], update))
    products = "matrix products of an update of M2, forwards and backwards"
    note = (
        "A share of 1 would be the floor itself. What eager operations move is no strict floor: caches hold some of it."
    )
    return [
        Table("peak of this machine, in this run", machine),
        Table(products, shapes, "those with 1 % of the work or more; best of 0.1 s each"),
        Table("an update of M2", shares, BATCH),
        Table("its floors", floors, note),
    ]


def overhead(plan: Plan) -> list[Table]:
    """Lightning, curves and checkpoints in an update; the way to the first update; the memory of a command."""
    rows = []
    for name in ("m2", "m1m2"):
        racers = [plan.racer(plan.case(name), loop) for loop in (ours, bare)]
        whole, alone = race(racers, plan.rounds)
        row = {"model": name, "whole, ms/update": 1e3 * middle(whole), "bare, ms/update": 1e3 * middle(alone)}
        row |= {"overhead, ms/update": 1e3 * middle(whole - alone)}
        rows.append(row | ratio("whole / bare", whole, alone))
    tables = [Table("Lightning's Trainer, curves and checkpoints, float32", rows, f"{BATCH}; bare: the same without")]
    times = 1 if plan.quick else 3
    words = ["model=m2", "data=digits", "budget=smoke", "baseline=null", f"device={plan.device}"]
    one = [*words, "budget.epochs=2", "budget.updates_per_epoch=1"]
    seen = [watch(one, plan.threads) for _ in range(times)]
    steps: list[Row] = []
    for name, modules in {"torch": "torch", "torch and pytorch_lightning": "torch, pytorch_lightning"}.items():
        seconds = [seconds_to_import(modules, plan.threads) for _ in range(times)]
        steps.append({"until": f"import {name}", "s": middle(seconds)})
    steps.append({"until": "the first update is done", "s": middle([w.first_update for w in seen])})
    steps.append({"until": "the end, scores and pictures included", "s": middle([w.end for w in seen])})
    note = f"python -m ssl_dgm.train {' '.join(one)}; median of {times}, imports in processes of their own"
    tables.append(Table("from the command to the first update", steps, note))
    peaks = []
    for s in (1, 5) if plan.quick else (1, 5, 10):
        seen = watch([*words, f"seeds=[{','.join(map(str, range(s)))}]"], plan.threads)
        peaks.append({"seeds S": s, "peak MB": seen.peak, "s": seen.end})
    tables.append(Table("the command's memory (VmHWM)", peaks, f"python -m ssl_dgm.train {' '.join(words)} seeds=..."))
    return tables


def _facts(racer: Racer, *names: str) -> Row:
    return {name: racer.facts[name] for name in names if name in racer.facts}


def _memory(racer: Racer) -> Row:
    return _facts(racer, "MB beside libraries", "peak GPU MB")


PARTS = {part.__name__: part for part in (m2, m1m2, models, seeds, peak, overhead, scaling)}
