"""Train a recipe with stages: one size after another, each from what the last has learnt.

    recipe.json      of all stages
    stages.json      estimated and measured memory and time of each
    stages/0064/     a run like any other, and so on to the largest

`cxrgan generate`, `export` and `evaluate` take the whole directory as its newest stage. What is
learnt passes on: all weights but the head's (with `growth_start=former_image` the head's too, in
the new block), and the moving statistics. Optimizers and the averaged generator start afresh in
each stage, for their numbers belong to other variables.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

from keras_cxrgan import runs
from keras_cxrgan.data import sources
from keras_cxrgan.data.headers import read_header
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.stages import by_stage
from keras_cxrgan.training import runtime
from keras_cxrgan.workflows import planning, running
from keras_cxrgan.workflows.assembly import PHANTOM_COUNT

LOOKED_AT = 200  # films whose size is read


def grow(
    recipe: Recipe,
    run: str | Path,
    *,
    data: str | None = None,
    extend: bool = False,
    memory_limit: int | None = None,
    memory_budget: int = 2 * 2**30,
    report=None,
    **options,
) -> running.RunResult:
    """Train all stages of a recipe in a run directory, or go on where it stopped.

    The cost of every stage is estimated and told first, and one that would not fit in memory is
    refused then. Returns the result of the last stage reached, with `stages` of all: estimated
    and measured seconds for each image, and the process's peak of memory.

    Args:
        memory_limit: bytes the process may hold; None for what the machine has free.
        **options: of `train`: classes, split, devices, ...

    Raises `ValueError` with one clear message for everything a user can mend.
    """
    recipe.check()
    run, stages = Path(run), by_stage(recipe)
    devices = options.get("devices", "auto")
    if extend or devices == "multiworker":
        raise ValueError(
            f"{'--extend' if extend else '--devices multiworker'} does not apply to a recipe with"
            " stages; set the epochs of each in the recipe (stage_epochs), on one machine"
        )
    runs.check_same_recipe(run, recipe, extend)
    count, notes = _films(data, stages, options)
    notes += _unfinished_ramps(stages, count)
    precisions = {stage.precision for stage in stages}
    strategy = runtime.start(
        devices,
        seed=recipe.seed,
        deterministic=options.get("deterministic", False),
        precision=precisions.pop() if len(precisions) == 1 else "float32",
    )
    for stage in stages:
        runs.check_batch_size(stage, strategy.num_replicas_in_sync)
        runs.check_enough(count, stage)
        _check_fade(stage, count)
    with runs.lock(run):
        earlier = _read_rows(run)
        speed = _learnt_speed(earlier) or planning.measure_speed(stages, strategy)
        plans = planning.plan_stages(stages, count, speed, memory_budget)
        for line in [*planning.plan_table(plans, count).splitlines(), *notes]:
            if report:
                report("", 0, 0, line)
        free = memory_limit or planning.memory_at_hand(strategy)
        if free:
            planning.check_fits(stages, plans, count, free, memory_budget=memory_budget)
        started = (run / "recipe.json").exists()
        runs.write_text(run / "recipe.json", recipe.to_json())
        rows, before = [], None
        for stage, plan in zip(stages, plans):
            folder = runs.stage_folder(run, stage.image_size)
            try:
                result = running.train(
                    stage,
                    folder,
                    data=data,
                    memory_budget=memory_budget,
                    start_from=before,
                    report=_told(report, stage.image_size),
                    **options,
                )
            except ValueError:
                if not (started or before or (folder / "recipe.json").exists()):
                    (run / "recipe.json").unlink()  # nothing was begun
                    _remove_empty(folder.parent)
                raise
            rows.append(_row(plan, result, speed, earlier.get(stage.image_size)))
            # What an earlier call measured of stages that this one has not come to yet stays.
            later = [row for size, row in sorted(earlier.items()) if size > stage.image_size]
            runs.write_text(run / "stages.json", json.dumps(rows + later, indent=1) + "\n")
            if report:
                report("", 0, 0, _sentence(rows[-1]))
            if result.interrupted:
                # In its last moments a stage is finished all the same; the run is not.
                if stage is not stages[-1]:
                    result = dataclasses.replace(result, state="stopped")
                break
            before = folder
    return dataclasses.replace(
        result,
        seconds=sum(row["measured_seconds"] for row in rows),
        notes=(*notes, *result.notes),
        stages=tuple(rows),
    )


def _films(data, stages, options) -> tuple[int, list[str]]:
    """Return the number of films, and what is to be said of their size."""
    if data is None:
        return PHANTOM_COUNT, []
    records = sources.read_source(
        data,
        options.get("classes", ()),
        options.get("split"),
        layout=options.get("layout", "auto"),
        allow_leak=options.get("allow_leak", False),
    )[0].records
    sizes = Counter()
    for record in records[:: max(1, len(records) // LOOKED_AT)]:
        try:
            header = read_header(record.read())
        except (OSError, ValueError):
            continue  # named with all other bad files, when they are prepared
        if header:
            sizes[min(header.height, header.width)] += 1
    largest, notes = stages[-1].image_size, []
    small = {size: number for size, number in sizes.items() if size < largest}
    if small:
        notes.append(
            f"{sum(small.values())} of {sizes.total()} films looked at are smaller than {largest}"
            f" pixels (most often {max(small, key=small.get)}): they are enlarged for the stages"
            " above their size, which can learn no detail from them"
        )
    return len(records), notes


def _check_fade(stage: Recipe, count: int) -> None:
    if stage.fade_in > stage.epochs * count:
        raise ValueError(
            f"stage {stage.image_size} ends after {stage.epochs * count:,} images"
            f" ({stage.epochs} epochs of {count:,}), before its new blocks have come in: pass"
            f" --set fade_in={stage.epochs * count // 2} or less, or more epochs"
        )


def _unfinished_ramps(stages: list[Recipe], count: int) -> list[str]:
    """Return what is to be said of stages that end before all their films are of their own size."""
    lengths = {stage.image_size: stage.epochs * count for stage in stages}
    short = [stage for stage in stages if stage.native_ramp > lengths[stage.image_size]]
    if not short:
        return []
    least = min(lengths[stage.image_size] for stage in short)
    return [
        f"films are enlarged from the size below to the end of stages of"
        f" {', '.join(str(stage.image_size) for stage in short)} pixels: {least:,} images are fewer"
        f" than native_ramp={short[0].native_ramp}; pass --set native_ramp={least // 2}, or more"
        " epochs"
    ]


def _learnt_speed(rows: dict[int, dict]) -> float | None:
    """Return the speed that the largest finished stage has shown, if any has."""
    shown = [row["speed"] for _, row in sorted(rows.items()) if row["state"] != "stopped"]
    return shown[-1] if shown else None


def _row(plan, result, speed: float, earlier: dict | None) -> dict:
    if earlier and result.state == "complete" and earlier["state"] != "stopped":
        return earlier
    seen, rate = max(1, result.images_seen), result.images_per_second
    return {
        **dataclasses.asdict(plan),
        "state": "stopped" if result.state == "stopped" else "finished",
        "images": result.images,
        "images_seen": result.images_seen,
        "measured_seconds": result.seconds,
        "measured_seconds_per_image": result.seconds / seen,  # with tracing and sample grids
        "measured_seconds_per_image_of_steps": 1 / rate if rate else None,
        # Of the whole process, so of the stages before this one too.
        "measured_memory": planning.peak_memory(),
        "speed": speed * plan.seconds_per_image * rate or speed,
    }


def _read_rows(run: Path) -> dict[int, dict]:
    try:
        rows = json.loads((run / "stages.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return {row["image_size"]: row for row in rows}


def _sentence(row: dict) -> str:
    """Return what a stage took, beside what was estimated."""
    peak = row["measured_memory"]
    memory = (
        f", peak {peak / 2**30:.1f} GiB ({row['memory'] / 2**30:.1f} estimated)" if peak else ""
    )
    return (
        f"stage {row['image_size']} {row['state']}: {row['measured_seconds_per_image']:.3f} s for"
        f" each image, {row['measured_seconds_per_image_of_steps'] or 0:.3f} of them in steps"
        f" ({row['seconds_per_image']:.3f} estimated){memory}"
    )


def _remove_empty(folder: Path) -> None:
    for path in (*folder.glob("*"), folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _told(report, size: int):
    if not report:
        return None
    return lambda stage, done, total, note="": report(
        f"{stage} {size}" if stage else "", done, total, note
    )
