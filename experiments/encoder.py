"""Train the chest X-ray encoder that ships with the package, and measure it on unseen patients.

Films are named PATIENT_VISIT (as in NIH ChestX-ray14) and lie in a folder for each class. Patients
are split, not films. Each film enters at 64 and at 256 pixels, the two sizes most users have.

Several objectives can be trained and ranked by `experiments.degradations`; contrastive won and
made the shipped weights. What it saw of the faults that it is judged by: small turns, shifts and
zooms and slight changes of gain and offset (it learns to look past those), and low resolution
(films of both sizes meet in a batch, as different). Blur, noise, checkerboards, borders, JPEG,
warps, occlusion, dropped modes and classes it never saw. Only denoising saw noise.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np

CLASSES = ("NORMAL", "PNEUMONIA")
SIZES = (64, 256)
BATCH = 64
STEPS = {"contrastive": 600, "denoising": 600, "supervised": 400, "rotation": 300, "random": 0}
LIMITS = (
    "Trained on frontal films of adults from one hospital's collection, normal or with pneumonia: "
    + "no children, no lateral views, no other disease on purpose.",
    "Sees 128 x 128 pixels. In larger images it misses what averaging removes: checkerboards and "
    + "noise of single pixels, hairlines, small markers.",
    "Trained to look past small shifts, turns and zooms and slight changes of gain and offset, "
    + "so it is slow to notice those.",
    "Hardly notices small occlusions, mild JPEG, and less than about a quarter of films of a wrong "
    + "class (experiments/results/degradations.md).",
    "As a classifier it is weak: a measure of sets of images, never of patients.",
    "Its distances compare only with distances by the same weights.",
)


def load_films(data, image_size: int, classes=CLASSES):
    """Return uint8 films (N, S, S), labels (N,) and patients (N,), in the order of the names."""
    from keras_cxrgan.data.prepare import prepare_images
    from keras_cxrgan.data.records import find_records

    try:
        records = find_records(data, classes)
        films = prepare_images(records, image_size).images
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    labels = np.array([classes.index(record.label) for record in records])
    patients = np.array([Path(record.path).stem.split("_")[0] for record in records])
    return films, labels, patients


def held_out(patients: np.ndarray, share: float = 0.3, seed: int = 0) -> np.ndarray:
    """Mask of the films that belong to a random `share` of the patients."""
    names = np.unique(patients)
    chosen = np.random.default_rng(seed).permutation(names)[: round(share * len(names))]
    return np.isin(patients, chosen)


def augment(films: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts, turns, zooms, gain and offset of float films (n, S, S, 1); never a mirror image."""
    import cv2

    size = films.shape[1]
    centre = (size - 1) / 2
    views = np.empty_like(films)
    for film, view in zip(films, views):
        matrix = cv2.getRotationMatrix2D(
            (centre, centre), rng.normal(0, 5), np.exp(rng.normal(0, 0.08))
        )
        matrix[:, 2] += rng.normal(0, 0.05, 2) * size
        view[..., 0] = cv2.warpAffine(
            film[..., 0], matrix, (size, size), borderMode=cv2.BORDER_REPLICATE
        )
        view *= np.float32(np.exp(rng.normal(0, 0.05)))
        view += np.float32(rng.normal(0, 0.04))
    return np.clip(views, -1, 1)


def make_batch(objective: str, films, labels, partners, rows, rng):
    """Return (inputs, targets) of one step; `partners[i]` are rows of the same patient and size."""
    views = augment(films[rows], rng)
    if objective == "contrastive":
        return views, augment(films[[rng.choice(partners[row]) for row in rows]], rng)
    if objective == "supervised":
        return views, labels[rows]
    if objective == "rotation":
        turns = rng.integers(4, size=len(rows))
        return np.stack([np.rot90(view, turn) for view, turn in zip(views, turns)]), turns
    noise = np.float32(0.2) * rng.standard_normal(views.shape, dtype=np.float32)
    return views + noise, views


def build_parts(objective: str, encoder):
    """Return the encoder up to where it is trained, and the head that is thrown away after."""
    import keras
    from keras import layers

    if objective == "denoising":
        body = keras.Model(encoder.input, encoder.get_layer("stage4_2").output)
        inputs = x = keras.Input(body.output.shape[1:])
        for filters in (96, 64, 32, 16):
            x = layers.UpSampling2D()(x)
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return body, keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(x))
    body = keras.Model(encoder.input, encoder.get_layer("pooled").output)
    inputs = keras.Input(body.output.shape[1:])
    x = layers.Dense(256, activation="relu")(inputs)
    outputs = layers.Dense({"supervised": 2, "rotation": 4, "contrastive": 128}[objective])(x)
    return body, keras.Model(inputs, outputs)


def contrastive_loss(first, second, temperature=0.2):
    """NT-Xent (Chen et al. 2020, eq. 1): among all views of a batch, each must find its partner."""
    import tensorflow as tf

    views = tf.math.l2_normalize(tf.concat([first, second], axis=0), axis=1)
    count = tf.shape(first)[0]
    logits = views @ tf.transpose(views) / temperature - 1e9 * tf.eye(2 * count)
    partners = tf.concat([tf.range(count) + count, tf.range(count)], axis=0)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(partners, logits))


def train(objective: str, encoder, films, labels, patients, steps: int, seed: int, report) -> None:
    """Train `encoder` on float films (N, S, S, 1); patients (N,) are distinct at each size."""
    import keras
    import tensorflow as tf

    body, head = build_parts(objective, encoder)
    variables = body.trainable_variables + head.trainable_variables
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=1e-3, warmup_steps=max(1, steps // 20)
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=1.0)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            outputs = head(body(inputs))
            if objective == "contrastive":
                loss = contrastive_loss(outputs, head(body(targets)))
            elif objective == "denoising":
                loss = tf.reduce_mean(tf.square(outputs - targets))
            else:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)
                loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    rng = np.random.default_rng(seed)
    partners = [np.flatnonzero(patients == patient) for patient in patients]
    losses = []
    for number in range(1, steps + 1):
        rows = rng.choice(len(films), BATCH, replace=False)
        inputs, targets = make_batch(objective, films, labels, partners, rows, rng)
        losses.append(float(step(tf.constant(inputs), tf.constant(targets))))
        report("training", number * BATCH, steps * BATCH, f"loss {np.mean(losses[-20:]):.4f}")


def set_projection(encoder, films) -> None:
    """Make the last layer principal components of the films' pooled features, half whitened.

    Channels are first put to unit variance (rare ones to less, or they would explode), and each
    component is then divided by the fourth root of its variance. Without that, brightness and size
    of the chest drown textures in a Frechet distance; dividing by the square root (whitening)
    gives directions that hold nothing the same say as all others.
    """
    import keras

    pooled = keras.Model(encoder.input, encoder.get_layer("pooled").output)
    features = pooled.predict(films, batch_size=64, verbose=0).astype(np.float64)
    projection = encoder.get_layer("projection")
    mean, sd = features.mean(0), features.std(0)
    sd = np.maximum(sd, 0.1 * np.median(sd))
    variances, directions = np.linalg.eigh(np.cov((features - mean) / sd, rowvar=False))
    top = slice(None, -projection.units - 1, -1)
    kernel = directions[:, top] / variances[top] ** 0.25 / sd[:, None]
    # A direction and its opposite are equally right; the choice must not depend on the library.
    kernel *= np.sign(kernel[np.abs(kernel).argmax(0), np.arange(projection.units)])
    projection.set_weights([kernel, -mean @ kernel])


def probe(features, labels, patients, test, test_labels, test_patients) -> dict:
    """Accuracy of a linear classifier of the features on other patients, with its interval."""
    from scipy.optimize import minimize
    from scipy.special import expit

    mean, sd = features.mean(0), features.std(0)
    x, t = (np.c_[(part - mean) / sd, np.ones(len(part))] for part in (features, test))
    signs = 2.0 * labels - 1

    def objective(weights):
        margins = signs * (x @ weights)
        loss = np.logaddexp(0, -margins).mean() + 0.05 * weights @ weights
        return loss, 0.1 * weights - x.T @ (signs * expit(-margins)) / len(x)

    weights = minimize(objective, np.zeros(x.shape[1]), jac=True).x
    scores = t @ weights
    right = (scores > 0) == (test_labels == 1)
    positive, negative = scores[test_labels == 1], scores[test_labels == 0]
    # Films of a patient are not independent: patients are drawn anew, not films.
    names, index = np.unique(test_patients, return_inverse=True)
    counts, hits = np.bincount(index), np.bincount(index, right)
    draws = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    accuracies = hits[draws].sum(1) / counts[draws].sum(1)
    return {
        "accuracy": round(float(right.mean()), 3),
        "interval_95": [round(float(x), 3) for x in np.percentile(accuracies, (2.5, 97.5))],
        "auc": round(float((positive[:, None] > negative).mean()), 3),
        "majority_class": round(float(max(test_labels.mean(), 1 - test_labels.mean())), 3),
        "films": len(test),
        "patients": len(names),
    }


@click.command()
@click.option("--data", required=True, help="Folder with NORMAL and PNEUMONIA, PATIENT_VISIT.jpg.")
@click.option(
    "--objective",
    type=click.Choice(list(STEPS)),
    default="contrastive",
    show_default=True,
    help="It learns to match views of a patient, to remove noise, labels, turns, or nothing.",
)
@click.option("--steps", type=int, help=f"Batches of {BATCH}.  [default: by objective]")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for cxr_encoder.npz and .json; keras_cxrgan/evaluation ships them."
    "  [default: runs/encoder/OBJECTIVE]",
)
def main(data, objective, steps, seed, out):
    """Train the encoder, put its features to scale, and write weights and card.

    \b
    The shipped weights: python -m experiments.encoder --data FOLDER --out keras_cxrgan/evaluation
    The comparison:      python -m experiments.degradations --data FOLDER
    """
    from keras_cxrgan.terminal import Progress, quiet_tensorflow

    with quiet_tensorflow():
        import keras
        import tensorflow as tf

        from keras_cxrgan.evaluation import encoder as shipped
    began = time.perf_counter()
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    out = out or Path("runs/encoder") / objective
    steps = STEPS[objective] if steps is None else steps
    sets = [load_films(data, size) for size in SIZES]
    _, labels, patients = sets[0]
    test = held_out(patients)
    prepared = [shipped.prepare_for_encoder(films) for films, _, _ in sets]
    films = np.concatenate([part[~test] for part in prepared])
    names = [f"{patient} at {size}" for size in SIZES for patient in patients[~test]]

    encoder = shipped.build_encoder()
    with Progress() as progress:
        if steps:
            train_labels = np.tile(labels[~test], len(SIZES))
            train(objective, encoder, films, train_labels, np.array(names), steps, seed, progress)
    set_projection(encoder, films)
    out.mkdir(parents=True, exist_ok=True)
    digest = shipped.save_encoder(encoder, out / shipped.WEIGHTS.name)
    # As shipped, with weights of 16 bits.
    encoder = shipped.read_encoder(out / shipped.WEIGHTS.name)
    features = encoder.predict(prepared[-1], batch_size=64, verbose=0)
    card = {
        "sha256": digest,
        "image_size": shipped.IMAGE_SIZE,
        "dims": shipped.DIMS,
        "parameters": encoder.count_params(),
        "objective": objective,
        "steps": steps,
        "batch": BATCH,
        "seed": seed,
        "tensorflow": tf.__version__,
        "trained_on": {
            "source": "NIH ChestX-ray14, NORMAL and PNEUMONIA",
            "films": int((~test).sum()),
            "patients": len(set(patients[~test])),
            "entered_at_pixels": list(SIZES),
        },
        "linear_probe": {
            "of": f"NORMAL against PNEUMONIA at {SIZES[-1]} px, patients held out",
            **probe(
                features[~test], labels[~test], patients[~test],
                features[test], labels[test], patients[test],
            ),
        },
        "limits": list(LIMITS),
    }  # fmt: skip
    (out / shipped.CARD.name).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    minutes = (time.perf_counter() - began) / 60
    click.echo(f"{json.dumps(card['linear_probe'])}\n{out}  {minutes:.1f} min")


if __name__ == "__main__":
    main()
