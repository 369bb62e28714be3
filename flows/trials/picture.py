"""The picture of a search: what each trial came to, in their order, and against the values of each key."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from optuna.trial import FrozenTrial, TrialState

from flows.trials.space import Space
from flows.trials.study import Study, ranked

COLUMNS = 3  # of panels beneath the first
BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#8a8f98"


def picture(study: Study) -> Figure:
    """Draw the accuracy of each trial and the best so far; beneath, of each key its values against the accuracy.

    At least one trial has come to its end. Of those that were given up, it is the accuracy that they had then; what is
    worse than the picture reaches lies on its lower edge.
    """
    trials = study.trials(TrialState.COMPLETE, TrialState.PRUNED)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = ranked(complete)[0]
    rows = math.ceil(len(study.space.ranges) / COLUMNS)
    figure = Figure(figsize=(10, 3.4 + 2.6 * rows), dpi=100, layout="constrained")
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.3] + [1.0] * rows)
    history = figure.add_subplot(grid[0, :])
    history.set_ylim(*_limits([_accuracy(trial) for trial in complete]))
    _dots(history, trials, best, lambda trial: trial.number)
    so_far = [max(_accuracy(earlier) for earlier in complete[: count + 1]) for count in range(len(complete))]
    ends = [*(trial.number for trial in complete), trials[-1].number]
    history.step(ends, [*so_far, so_far[-1]], where="post", color=BLUE, lw=1, label="best so far")
    history.set_title(f"Trial {best.number} is the best: {best.value:.2%} of the validation images")
    history.set(xlabel="trial", ylabel="validation accuracy")
    history.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(*history.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    for number, key in enumerate(study.space.ranges):
        panel = figure.add_subplot(grid[1 + number // COLUMNS, number % COLUMNS], sharey=history)
        _panel(panel, key, study.space, trials, best)
        panel.tick_params(labelleft=number % COLUMNS == 0)
    return figure


def _panel(axis: Axes, key: str, space: Space, trials: Sequence[FrozenTrial], best: FrozenTrial) -> None:
    one = space.ranges[key]
    if one.choices is not None:
        places = {repr(choice): place for place, choice in enumerate(one.choices)}
        _dots(axis, trials, best, lambda trial: places[repr(space.decode(trial.params)[key])])
        axis.set_xticks(range(len(one.choices)), [str(choice) for choice in one.choices])
        axis.set_xlim(-0.5, len(one.choices) - 0.5)
        for label in axis.get_xticklabels():
            label.set_parse_math(False)
    else:
        _dots(axis, trials, best, lambda trial: float(space.decode(trial.params)[key]))
        if one.log:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(key, parse_math=False)


def _dots(axis: Axes, trials: Sequence[FrozenTrial], best: FrozenTrial, place: Callable[[FrozenTrial], float]) -> None:
    low, _ = axis.get_ylim()
    for state, marker, color, name in (
        (TrialState.PRUNED, "x", GREY, "given up"),
        (TrialState.COMPLETE, "o", BLUE, "trial"),
    ):
        drawn = [trial for trial in trials if trial.state is state]
        heights = [max(low, _accuracy(trial)) for trial in drawn]
        places = [place(trial) for trial in drawn]
        (line,) = axis.plot(places, heights, marker, ms=5, color=color, alpha=0.8, label=name, clip_on=False)
        line.set_in_layout(False)  # without a point on a logarithmic axis, it would take up everything
    axis.plot([place(best)], [_accuracy(best)], "o", ms=10, mfc="none", mec=ORANGE, mew=2, label="best")
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e8eb")
    axis.set_axisbelow(True)


def _limits(accuracies: Sequence[float]) -> tuple[float, float]:
    """Show the better trials large: one that learned next to nothing would press the others together."""
    ordered = sorted(accuracies)
    low, high = ordered[len(ordered) // 4], ordered[-1]
    margin = max(high - low, 0.01)
    return max(0, low - margin), high + margin / 4


def _accuracy(trial: FrozenTrial) -> float:
    return float(trial.value or 0)
