"""How fast paths are credited, against other packages on the same data, and whether the results agree.

    python benchmarks/attribution_paths.py [--paths 1000000] [--peer-python /path/to/python]

Makes --paths paths of ten channels with a seed, one to twenty touches each, a fifth of them converting, as CSV.
Prints seconds, how many times ours that is, and the peak of memory. Ours is timed from the file on, in a process
of its own. --peer-python names a Python that has ChannelAttribution (with matplotlib, which it needs) or
marketing-attribution-models 2. Each gets a pandas frame that is in memory already, in a process of its own; its
largest relative difference from ours is shown. For Markov: ChannelAttribution simulates the chain, so its credit
only comes near; marketing-attribution-models is exact in its removal effects, which are compared, and then splits
each path by them, which is another credit. Only ratios of one run mean something.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from earmark.journeys.comparison import Options, compare
from earmark.journeys.markov import Chain
from earmark.journeys.reading import read_journeys

CHANNELS = 10
GROUPS = {
    "first, last, linear": ("first_touch", "last_touch", "linear"),
    "position, last non-direct": ("position_based", "last_non_direct"),
    "markov": ("markov",),
    "markov of order 2": ("markov_2",),
    "shapley": ("shapley",),
}
PEAK = """
def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int([line for line in lines if line.startswith("VmHWM:")][0].split()[1]) * 1024
"""
TIMED = """
def timed(name, run):
    began = time.perf_counter()
    result = run()
    seconds[name] = time.perf_counter() - began
    return result
"""
PEERS = {
    "ChannelAttribution": """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()):
    import ChannelAttribution as peer
names = dict(var_value="value", flg_pro=False)
with contextlib.redirect_stdout(io.StringIO()):
    table = timed("first, last, linear", lambda: peer.heuristic_models(frame, "path", "conversions", **names))
    chain = timed("markov", lambda: peer.markov_model(frame, "path", "conversions", var_null="null", **names))
table = table.set_index("channel_name")
for ours, theirs in (("first_touch", "first_touch"), ("last_touch", "last_touch"), ("linear", "linear_touch")):
    credit[ours] = table[theirs + "_conversions"].to_dict()
credit["markov"] = chain.set_index("channel_name")["total_conversions"].to_dict()
""",
    "marketing-attribution-models": """
from mam.core import MAM
frame["converted"] = frame["conversions"] > 0
frame["times"] = 1
peer = timed("preparing", lambda: MAM(frame, "grouped_journey", "path", "converted", occurrences_colname="times"))
three = timed("first, last, linear", lambda: [peer.run_first_click(), peer.run_last_click(), peer.run_linear()])
chain = timed("markov", lambda: peer.run_markov())
for name, result in zip(("first_touch", "last_touch", "linear"), three):
    credit[name] = result.to_pandas().set_index("channels")["attribution"].to_dict()
credit["removal_effect"] = chain.metadata["removal_effect"]["removal_effect"].to_dict()
""",
}


def make_file(path: Path, count: int) -> None:
    """Write paths whose channels follow each other with some persistence, and convert more the longer they are."""
    pick = np.random.default_rng(7)
    lengths = np.minimum(pick.geometric(0.25, count), 20)
    ends = np.cumsum(lengths)
    names = np.array([f"channel {number}" for number in range(CHANNELS)])
    drawn = pick.choice(CHANNELS, ends[-1], p=np.arange(1, CHANNELS + 1) / np.arange(1, CHANNELS + 1).sum())
    steps = pl.Series(names[drawn])
    owner = pl.Series(np.repeat(np.arange(count), lengths))
    converts = pick.random(count) < 0.1 + 0.025 * lengths
    joined = pl.DataFrame({"owner": owner, "step": steps}).group_by("owner", maintain_order=True)
    joined.agg(pl.col("step").str.join(" > ").alias("path")).with_columns(
        pl.Series("conversions", converts.astype(int)),
        pl.Series("value", np.where(converts, np.round(pick.gamma(2, 20, count), 2), 0)),
        pl.Series("null", (~converts).astype(int)),
    ).drop("owner").write_csv(path)


def only_ours(path: str) -> None:
    """Print seconds of each part, our credit and the peak of memory."""
    seconds: dict[str, float] = {}
    credit: dict[str, dict[str, float]] = {}
    began = time.perf_counter()
    journeys = read_journeys(path)
    seconds["reading"] = time.perf_counter() - began
    for name, models in GROUPS.items():
        began = time.perf_counter()
        table = compare(journeys.paths, models, Options()).table
        seconds[name] = time.perf_counter() - began
        for model in models:
            rows = table.filter(model=model)
            credit[model] = dict(zip(rows["channel"], rows["conversions"], strict=True))
    journey_counts = journeys.paths.conversions + journeys.paths.nulls
    effects = Chain(journeys.paths, 1).removal_effects(journey_counts, journeys.paths.conversions[None, :])
    credit["removal_effect"] = dict(zip(journeys.paths.channels, effects[0].tolist(), strict=True))
    scope: dict[str, Callable[[], int]] = {}
    exec(PEAK, scope)  # noqa: S102  (the same text as for the others)
    print(json.dumps({"seconds": seconds, "credit": credit, "peak": scope["peak"]()}))


def answer(command: list[str]) -> dict:
    """Run a command that prints JSON in its last line."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().split("\n")[-1][:200])
    return json.loads(done.stdout.strip().split("\n")[-1])


def peer_script(text: str) -> str:
    start = f"import json, sys, time\nimport pandas as pd\n{PEAK}\nseconds, credit = {{}}, {{}}\n{TIMED}\n"
    end = '\nprint(json.dumps({"seconds": seconds, "credit": credit, "peak": peak()}))\n'
    return f"{start}frame = pd.read_csv(sys.argv[1])\n{text}{end}"


def report(name: str, seconds: float, ours: float | None, note: str = "") -> None:
    ratio = f"{seconds / ours:7.1f}" if ours else " " * 7
    print(f"{name:<58} {seconds:8.2f} {ratio}  {note}", flush=True)


def agreement(theirs: dict[str, dict[str, float]], ours: dict[str, dict[str, float]], models: set[str]) -> str:
    """Say how far figures that both have lie apart."""
    apart = [
        abs(theirs[model][channel] - figure) / figure
        for model in models & theirs.keys()
        for channel, figure in ours[model].items()
    ]
    return f"differs by {max(apart):.1e} at most" if apart else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--peer-python", help="a Python that has the packages to compare with")
    parser.add_argument("--only-ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_ours:
        only_ours(options.only_ours)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paths.csv"
        make_file(path, options.paths)
        ours = answer([sys.executable, __file__, "--only-ours", str(path)])
        print(f"{options.paths:,} paths, {path.stat().st_size / 2**20:.0f} MB\n{'':<58}  seconds   ratio")
        for part, seconds in ours["seconds"].items():
            report(f"earmark, {part}", seconds, None)
        whole = sum(ours["seconds"].values())
        report("earmark, all", whole, None, f"peak {ours['peak'] / 2**20:,.0f} MB")
        for name, text in PEERS.items():
            if not options.peer_python:
                print(f"{name:<58} skipped: give --peer-python")
                continue
            try:
                theirs = answer([options.peer_python, "-c", peer_script(text), str(path)])
            except RuntimeError as error:
                print(f"{name:<58} skipped: {error}")
                continue
            for part, seconds in theirs["seconds"].items():
                compared = {*GROUPS.get(part, ()), *(("removal_effect",) if part == "markov" else ())}
                note = agreement(theirs["credit"], ours["credit"], compared)
                report(f"{name}, {part}", seconds, ours["seconds"].get(part), note)
            both = ("first, last, linear", "markov")
            same = ours["seconds"]["reading"] + sum(ours["seconds"][part] for part in both)
            total = sum(theirs["seconds"].values())
            note = f"peak {theirs['peak'] / 2**20:,.0f} MB; ours with reading the file: {same:.2f} s"
            report(f"{name}, all of these", total, same, note)


if __name__ == "__main__":
    main()
