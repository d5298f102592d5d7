"""The papers' two DCGANs and the WGAN-GP on one folder of films: grids, curves, one figure.

Not a study of any paper: it shows that the networks of three recipes learn chest X-rays from a
few hundred films on a small machine, how fast, and what they look like.

Two departures from the recipes, both for small sets. The batch is 32 instead of 128, so that a
pass over 500 films has about as many updates (16) as the papers' pass over 1,341 (11); and the
runs are shorter. The WGAN-GP sees as many images as the DCGAN, which gives its generator a
fifth of the updates (critic_steps 5): equal images, not equal training.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

EPOCHS = {"tutorial": 150, "venu2020": 100, "ng2023_wgan_gp": 150}
BATCH_SIZE = 32


@click.command()
@click.option("--data", type=click.Path(), help="Folder or zip of films.  [default: the phantom]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/first_look"), show_default=True
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="Fraction of the epochs.")
def main(data, out, scale):
    """Train three recipes and draw real against generated images; resumes where it stopped."""
    from keras_cxrgan.terminal import Progress, quiet_tensorflow

    progress = Progress()
    with quiet_tensorflow():
        from keras_cxrgan import workflows
        from keras_cxrgan.recipe import RECIPES
    results = []
    for name, epochs in EPOCHS.items():
        recipe = RECIPES[name].override(batch_size=BATCH_SIZE, epochs=max(1, round(scale * epochs)))
        result = workflows.train(recipe, out / name, data=data, report=progress)
        progress.end()
        click.echo(f"{name}: {result.state}, {result.images_seen:,} images seen")
        results.append({"recipe": name, **dataclasses.asdict(result)})
        if result.state == "stopped":
            raise SystemExit(130)
    figure = workflows.figure(
        [str(out / name) for name in EPOCHS], out / "first_look.png", columns=16
    )
    for result in results:
        for field in ("run", "export"):  # places of this machine
            result.pop(field)
    (out / "first_look.json").write_text(json.dumps(results, indent=2) + "\n")
    click.echo(f"{figure}\n{out / 'first_look.json'}")


if __name__ == "__main__":
    main()
