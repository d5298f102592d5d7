"""What a person sees: one progress line, tables, and a quiet TensorFlow."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
import warnings
from pathlib import Path


class Progress:
    """One line on stderr that is rewritten in a terminal, and repeated rarely in a file.

    Call it as `progress(stage, done, total, note)`; a new stage ends the line before it, and so
    does leaving the `with` block, for an error's message too. A total of 0 is no progress but
    a remark, which stays on lines of its own.
    """

    def __init__(self, stream=None, quiet: bool = False, file_interval: float = 15.0):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.live = self.stream.isatty()
        self.interval = 0.1 if self.live else file_interval
        self.stage = None
        self.open = False  # an unfinished line stands in the terminal

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self.quiet:
            return
        if not total:
            self.end()
            self.stream.write(textwrap.fill(note, 96, subsequent_indent="  ") + "\n")
            return
        now = time.monotonic()
        if stage != self.stage:
            self.end()
            self.stage, self.first, self.shown, self.complete = stage, (now, done), -math.inf, False
        if self.complete or (now - self.shown < self.interval and done < total):
            return
        self.shown, self.complete = now, done >= total
        began, at = self.first
        rate = (done - at) / (now - began) if now > began and done > at else 0.0
        parts = [f"{stage:<10}", _bar(done, total), f"{done:,}/{total:,}"]
        if note:
            parts.append(note)
        if rate:
            left = f"{format_seconds((total - done) / rate)} left"
            parts.append(f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2f} images/s")
            parts.append(left if done < total else f"{format_seconds(now - began)} in all")
        self._show("  ".join(parts), final=done >= total)

    def _show(self, text, final):
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + text[:width].ljust(width))
            self.open = not final
            if final:
                self.stream.write("\n")
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        self.end()

    def end(self) -> None:
        """Leave the line, so that other text starts on a new one."""
        if self.open:
            self.stream.write("\n")
            self.stream.flush()
            self.open = False
        self.stage = None


def _bar(done, total, width=20):
    share = min(1.0, done / total) if total else 1.0
    full = int(share * width)
    return f"{share:4.0%} [{'#' * full}{'.' * (width - full)}]"


def format_seconds(seconds: float) -> str:
    """Return 75 as 1:15 and 3700 as 1:01:40."""
    seconds = int(round(seconds))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def table(rows: list[tuple[str, str]]) -> str:
    """Return two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def grid(title: str, header, rows, note: str = "") -> str:
    """Return a titled table of many columns: the first left-aligned, the others right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        return "  " + "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()

    lines = [title, line(header), *map(line, rows)]
    return "\n".join(lines + ([f"  {note}"] if note else []))


def paragraphs(title: str, texts) -> str:
    """Return titled texts as wrapped bullets."""
    width = min(100, shutil.get_terminal_size().columns)
    return "\n".join(
        [title]
        + [
            textwrap.fill(text, width, initial_indent="  - ", subsequent_indent="    ")
            for text in texts
        ]
    )


def summarize_run(result, films: str | None = None) -> str:
    """Return the table that ends `cxrgan train`, from a `RunResult`.

    Args:
        films: what it was trained on, as `cxrgan generate --without-copies-of` takes it, for the
            command to go on with; None for the command without it.
    """
    metrics = result.metrics
    run = Path(result.run)
    rows = [
        ("state", _state(result)),
        ("images", f"{result.images:,}"),
        (
            "images seen",
            f"{result.images_seen:,}  ({result.epochs:.1f} epochs, {result.steps:,} steps)",
        ),
        (
            "speed",
            f"{result.images_per_second:,.1f} images/s  (median; {format_seconds(result.seconds)} in all)",
        ),
    ]
    if metrics:
        rows += [
            (
                "losses",
                f"discriminator {metrics['discriminator_loss']:.3f}, generator {metrics['generator_loss']:.3f}",
            ),
            (
                "scores",
                f"real {metrics['real_score']:.3f}, fake {metrics['fake_score_before']:.3f} before and {metrics['fake_score_after']:.3f} after the update",
            ),
        ]
        if "wasserstein_estimate" in metrics:
            rows.append(("Wasserstein", f"{metrics['wasserstein_estimate']:.3f}"))
    if result.best:
        command = shlex.join(["cxrgan", "generate", str(run), "--best"])
        rows.append(("best", f"{describe_best(result.best)} ({command})"))
    rows += [
        ("real images", str(run / "reals.png")),
        ("samples", str(run / "samples")),
        ("loss curves", str(run / "losses.png")),
        (
            "log",
            f"{run / 'log.jsonl'}  (tensorboard --logdir {shlex.quote(str(run / 'tensorboard'))})",
        ),
    ]
    if result.export:
        command = ["cxrgan", "generate", str(run), "-n", "1000", "--out", f"{run.name}-images"]
        command += ["--without-copies-of", films] if films else []
        rows += [("generator", result.export), ("next", shlex.join(command))]
    return "\n" + table(rows)


def describe_best(best: dict) -> str:
    """Return the record of a best checkpoint as one short text that says how it was chosen."""
    return (
        f"{best['metric']} {best['value']:.3g} at {best['images_seen']:,} images seen,"
        " chosen on that metric"
    )


def _state(result) -> str:
    if result.state == "complete":
        return "was finished already; nothing to do (--extend --epochs N trains longer)"
    resumed = f", resumed from {result.resumed_from:,} images" if result.resumed_from else ""
    return result.state + resumed


@contextlib.contextmanager
def quiet_tensorflow(verbose: bool = False, needed: bool = True):
    """Import TensorFlow inside this block without its chatter; `verbose` leaves it on.

    Where it is not `needed`, nothing is imported, which saves seconds.

    TensorFlow writes to the process's stderr from C++ before its own log level is read. That
    text is held back, and shown only when the import fails.
    """
    if verbose or not needed or "tensorflow" in sys.modules:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.filterwarnings("ignore")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            tf.autograph.set_verbosity(0)
            # The first operation starts the devices, which chatters too.
            import keras  # noqa: F401

            yield
        except BaseException:
            sys.stderr.flush()
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
