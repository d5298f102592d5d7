"""Recipes: every choice of a training run in one flat, checked, printable object.

Defaults live here and nowhere else: the command line reads them from `Recipe`, a run stores
its recipe as `recipe.json`, and a paper is a `Recipe` in `RECIPES` that states what it changes.

    >>> from keras_cxrgan.recipe import RECIPES
    >>> recipe = RECIPES["venu2020"].override(epochs=50)
    >>> recipe.difference(RECIPES["venu2020"])
    {'epochs': (50, 500)}
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from keras_cxrgan.fields import SPELLED, has_type, parse, spell
from keras_cxrgan.rules import wrong_objective, wrong_sizes, wrong_values
from keras_cxrgan.stages import OWN, by_stage, wrong_growth

# What is looked at, and when: it does not decide what is learnt, so a run may go on with others.
WATCHING = (
    "sample_interval",
    "evaluate_interval",
    "evaluate_count",
    "evaluate_features",
    "evaluate_metric",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns, and how it is watched meanwhile.

    All fields are plain, typed and checked.
    """

    name: str = "default"
    summary: str = "a narrow one-channel DCGAN with an averaged generator, for a first look"

    # Images
    image_size: int = 64  # pixels along one side; a power of two from 32 to 2048
    channels: int = 1  # 1 = grey; 3 = the grey image three times, where a paper says so
    fit: str = "crop"  # how a film becomes square: crop its centre, pad with black, or stretch
    window: tuple[float, ...] = ()  # 16-bit PNG: levels shown black, white; () = each by percentile
    clahe_clip_limit: float = 0.0  # OpenCV's CLAHE clip limit, before the resize; 0 = no CLAHE
    clahe_tiles: int = 8  # CLAHE tiles along one side
    clahe_size: int = 0  # longer side in pixels at which CLAHE is applied; 0 = native size

    # Networks (models/dcgan.py)
    latent_dim: int = 100  # numbers in one latent vector
    latent_distribution: str = "normal"  # normal N(0, 1), or uniform on [-1, 1]
    base_size: int = 4  # side of the generator's first and the discriminator's last feature map
    width: int = 32  # feature maps at half the image size; doubles with each halving
    generator_max_width: int = 256  # its feature maps never exceed it
    discriminator_max_width: int = 256  # nor do the discriminator's
    upsampling: str = "resize"  # resize = UpSampling2D + Conv2D, transpose = Conv2DTranspose
    generator_kernel_size: int = 3  # pixels
    generator_activation: str = "relu"  # relu, or leaky_relu with slope 0.2
    generator_normalization: str = "batch"  # batch, instance, or none
    normalize_base: bool = True  # also normalize the 4x4 or 8x8 map that the latent becomes
    batches_in_use: bool = False  # without classes: in use, too, batches are normalized together
    self_modulation: bool = False  # latents scale and shift each normalized map of the generator
    discriminator_kernel_size: int = 4  # pixels, stride 2
    discriminator_normalization: str = "batch"  # batch, instance, or none; not on the first block
    discriminator_normalization_affine: bool = True  # learnt scale and offset
    discriminator_dropout: tuple[float, ...] = ()  # one rate for each block; () = no dropout
    discriminator_spectral: bool = False  # weights divided by their largest singular value
    minibatch_stddev: bool = False  # the discriminator also sees how varied a batch is
    minibatch_group: int = 4  # images whose variety it sees together; the batch's, if it has fewer
    minibatch_features: int = 1  # numbers that tell it, each of as many of its feature maps
    residual: bool = False  # a way around each block, in both networks
    conditional: bool = False  # one generator of all classes, each image made of a class
    balanced: bool = False  # conditional: it learns from all classes alike, however many films
    convention: str = "pytorch"  # pytorch or keras: initial weights, biases, BN constants

    # Growth (models/incremental.py, workflows/growing.py)
    grown_from: int = 0  # size whose networks these append blocks to; 0 = no growth
    growth_width: tuple[int, ...] = (8,)  # feature maps of each appended block; one number for all
    previous_size: int = 0  # size they grew from to image_size; 0 = half of it
    growth_start: str = "random"  # of what is appended; former_image = it makes the one before
    fade_in: int = 0  # images of a stage over which its new blocks come in; 0 = at once
    native_ramp: int = 0  # images of a stage until none is blown up from the last size's; 0 = none
    stages: tuple[int, ...] = ()  # sizes to train one after another, the last is image_size
    stage_batch_sizes: tuple[int, ...] = ()  # one for each stage; () = batch_size in all
    stage_accumulations: tuple[int, ...] = ()  # one for each stage, as all that follow
    stage_learning_rates: tuple[float, ...] = ()  # of both networks
    stage_generator_learning_rates: tuple[float, ...] = ()  # of the generator alone
    stage_epochs: tuple[int, ...] = ()  # passes over the training images
    stage_precisions: tuple[str, ...] = ()  # float32, mixed_bfloat16 or mixed_float16

    # Objective (training/losses.py)
    loss: str = "non_saturating"  # non_saturating, minimax, hinge, least_squares, wasserstein
    label_smoothing: float = 0.0  # one-sided: real images are labelled 1 minus this
    penalty: str = "none"  # of the discriminator: none, gradient_penalty (WGAN-GP), r1
    penalty_weight: float = 10.0  # factor of the penalty in the discriminator's loss
    penalty_size: int = 0  # of r1: side at which penalty_weight holds, more pixels more; 0 = any
    penalty_interval: int = 1  # discriminator steps, or parts of them, to one with a penalty
    critic_steps: int = 1  # discriminator updates for each generator update, each on fresh images
    augmentations: tuple[str, ...] = ()  # translation, cutout, brightness, contrast, scale
    augmentation_probability: float = 1.0  # of each to change what the discriminator sees, at first
    augmentation_target: float = 0.0  # ADA: share of real judged real, less fake, to hold; 0 = off
    augmentation_ramp: int = 500_000  # ADA: images in which it could go from 0 to 1; 0.8 is its end
    augmentation_memory: int = 1  # ADA: images over which the share is averaged; a batch at least
    consistency_weight: float = 0.0  # augmentations then only ask for equal answers, weighed so

    # Optimization
    generator_learning_rate: float = 0.0002  # of Adam
    discriminator_learning_rate: float = 0.0002  # of Adam
    rate_decay: float = 0.0  # share of the training, its last, in which both rates fall to 0
    beta_1: float = 0.5  # share that Adam keeps of the mean gradient at each update
    beta_2: float = 0.999  # share that it keeps of the mean squared gradient
    adam_epsilon: float = 1e-8  # added to the root of that mean, which divides
    batch_size: int = 32  # images in one update, over all replicas
    accumulation: int = 1  # parts of a batch in memory, gradients averaged; D moves in the last
    epochs: int = 100  # passes over the training images
    training_images: int = 0  # images seen in all, however few films; 0 = so many epochs
    ema_half_life: int = 2000  # images until a weight counts half in the average; 0 = no average
    precision: str = "float32"  # float32, mixed_bfloat16, mixed_float16; penalties: float32
    seed: int = 0  # of everything random: weights, latents, order of films, augmentation

    # Watching: may differ when a run goes on, for it does not decide what is learnt
    sample_interval: int = 0  # images seen between sample grids; 0 = a twentieth of the run
    evaluate_interval: int = 0  # images seen between evaluations (one more at the end); 0 = never
    evaluate_count: int = 0  # generated images scored each time; 0 = as the real ones, up to 1000
    evaluate_features: str = "cxr"  # extractor by name, as in cxrgan evaluate --features
    evaluate_metric: str = "kid"  # the best checkpoint is kept by it

    def check(self) -> Recipe:
        """Return the recipe itself, or raise `ValueError` with one line for each wrong field."""
        wrong = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not has_type(value, field.type):
                wrong.append(f"{field.name} must be {SPELLED[field.type]}, got {value!r}")
        if not wrong:
            wrong += wrong_values(self)
            wrong += wrong_sizes(self) or wrong_growth(self)
            wrong += wrong_objective(self)
        if wrong:
            raise ValueError("\n".join(wrong))
        for stage in by_stage(self):
            stage.check()
        return self

    def override(self, /, **fields) -> Recipe:
        """Return a checked copy with some fields changed; text is parsed to the field's type.

        Raises `ValueError` for an unknown field (naming the nearest), or a wrong value.
        """
        known = {field.name: field for field in dataclasses.fields(self)}
        parsed = {}
        for name, value in fields.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"the recipe has no field {name!r}{hint}"
                    " (cxrgan recipes default lists all fields)"
                )
            parsed[name] = parse(name, value, known[name].type)
        if "epochs" in parsed:
            # Who names epochs means them, also of a recipe that counts images.
            parsed.setdefault("training_images", 0)
        changed = dataclasses.replace(self, **parsed)
        for stages, fields in OWN.items():
            idle = [field for field in fields if field in parsed]
            if idle and getattr(changed, stages) and stages not in parsed:
                raise ValueError(
                    f"{idle[0]} would change nothing: each stage has its own,"
                    f" {stages}={spell(getattr(changed, stages))}; change that"
                )
        return changed.check()

    def total_images(self, films: int) -> int:
        """Return how many images a training on so many films sees."""
        return self.training_images or self.epochs * films

    def difference(self, other: Recipe) -> dict[str, tuple]:
        """Return `{field: (ours, theirs)}` for each field that decides the result and differs.

        Names, summaries and the fields in `WATCHING` decide nothing.
        """
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        others = ("name", "summary", *WATCHING)
        return {
            name: (ours[name], theirs[name])
            for name in ours
            if name not in others and ours[name] != theirs[name]
        }

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read `to_json`'s text; fields that are missing keep their default."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the recipe is no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"a recipe is a JSON object of fields, got {type(fields).__name__}")
        return cls().override(**fields)

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """Return the recipe of that name, or the one in a JSON file."""
        if name_or_path in RECIPES:
            return RECIPES[name_or_path]
        path = Path(name_or_path)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path} is no recipe: it is not text") from None
            return cls.from_json(text)
        near = difflib.get_close_matches(name_or_path, RECIPES, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"there is no recipe {name_or_path!r}, by name or as a JSON file{hint}"
            f" (cxrgan recipes lists them: {', '.join(RECIPES)})"
        )


FILMS_FOR_LONG = 300  # from which `small_data_long` is worth its time; measured on 500
FEW_FILMS = 5000  # below which a discriminator learns them by heart, unless it is kept from it

_TUTORIAL = Recipe(
    name="tutorial",
    summary="the DCGAN tutorial's networks and settings at 64x64x3, nothing else",
    channels=3,
    upsampling="transpose",
    generator_kernel_size=4,
    width=64,
    generator_max_width=512,
    discriminator_max_width=512,
    batch_size=128,
    epochs=500,
    ema_half_life=0,
)

# What is in it, and what was left out, was measured: experiments/small_data.py. Shifts and
# squares cut out of all that the discriminator sees keep it from learning few films by heart
# (Zhao et al. 2020). Exposure stays as it is: with brightness and contrast drawn at random the
# discriminator no longer sees how films differ in them, and the generator makes one exposure
# only. How often is adapted (Karras et al. 2020), from never: early on the networks learn faster
# without; by the mean of 256 images, for one batch's are judged alike where it is shown its own
# variety. Batch normalization blinds a discriminator to how dark a batch is, and corners come
# out black; without it, it needs weights that keep the size of what passes through (Glorot's,
# not N(0, 0.02)), and R1 then holds it (by pixels: a weight good at 64x64 is four times too
# light at 128x128), at five times the tutorial's learning rates. At these one outlying gradient
# moves every weight by up to (1 - beta_1) / sqrt(1 - beta_2) of them: 16 with Adam's usual
# memory of 1,000 updates, which a training of 300,000 images at 128x128 did not survive; 10 with
# one of 100 and no mean of gradients, which lags behind the other network's moves. Small batches
# are many updates. Ways around blocks bring variety; so does telling the generator its latents
# at every size (Chen et al. 2019), and so does showing the discriminator the batch's own,
# feature by feature, where a generator's images differ too little in a few respects only.
_SMALL_DATA = Recipe(
    name="small_data",
    summary="for 50 to 5,000 films: what the discriminator sees is shifted and cut out",
    self_modulation=True,
    discriminator_normalization="none",
    convention="keras",
    penalty="r1",
    penalty_weight=0.05,
    penalty_size=64,
    penalty_interval=8,
    augmentations=("translation", "cutout"),
    augmentation_probability=0.0,
    augmentation_target=0.6,
    augmentation_ramp=50_000,
    augmentation_memory=256,
    residual=True,
    minibatch_stddev=True,
    minibatch_group=16,
    minibatch_features=16,
    generator_learning_rate=0.001,
    discriminator_learning_rate=0.001,
    beta_1=0.0,
    beta_2=0.99,
    batch_size=16,
    rate_decay=0.25,
    ema_half_life=10_000,
    training_images=100_000,
)

# What the papers leave open and the reading taken stands in experiments/, beside each study.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe.check()
    for recipe in (
        Recipe(),
        _SMALL_DATA,
        # What 500 films gain by, measured on them; 60 or 70 come out as copies more often. At 128
        # pixels the discriminator explodes for moments at these rates: half of them are better.
        # Images made in batches, as the discriminator knew them, are nearer to the films than images
        # normalized by moving averages.
        dataclasses.replace(
            _SMALL_DATA,
            name="small_data_long",
            summary="small_data for 300 films or more: wider, and longer at falling rates",
            batches_in_use=True,
            width=48,
            rate_decay=0.65,
            training_images=340_000,
        ),
        _TUTORIAL,
        # S. Kora Venu, "DCGANs for data augmentation of chest X-ray images", 2020.
        # The widths, batch size and optimizer are open in the abstract; these follow Radford et
        # al. 2016 (its reference for the optimizer) and Keras' own initial weights.
        Recipe(
            name="venu2020",
            summary="Venu 2020: DCGAN 128x128x1, UpSampling2D + Conv2D, LeakyReLU",
            image_size=128,
            base_size=8,
            width=64,
            discriminator_max_width=512,
            generator_activation="leaky_relu",
            normalize_base=False,
            discriminator_kernel_size=3,
            discriminator_normalization="none",
            convention="keras",
            adam_epsilon=1e-7,
            batch_size=128,
            epochs=500,
            ema_half_life=0,
        ),
        # M.F. Ng and C.A. Hargreaves, Engineering Proceedings 31(1):84, 2023.
        dataclasses.replace(
            _TUTORIAL,
            name="ng2023_dcgan",
            summary="Ng & Hargreaves 2023: DCGAN 64x64x3 on CLAHE images",
            clahe_clip_limit=2.0,
            epochs=700,
        ),
        dataclasses.replace(
            _TUTORIAL,
            name="ng2023_wgan_gp",
            summary="Ng & Hargreaves 2023: WGAN-GP 64x64x3 on CLAHE images, instance norm critic",
            clahe_clip_limit=2.0,
            discriminator_normalization="instance",
            loss="wasserstein",
            penalty="gradient_penalty",
            penalty_weight=10.0,
            critic_steps=5,
            generator_learning_rate=0.0001,
            discriminator_learning_rate=0.0001,
            beta_2=0.9,
            epochs=700,
        ),
        # The incremental DCGAN, 64 to 2048. Its ramp of native images ("replacing a few") is open
        # in the paper: here five passes over its 138 normal films.
        dataclasses.replace(
            _TUTORIAL,
            name="incremental",
            summary="Incremental DCGAN: 64x64x1, 8 maps wide, grown in five doublings to 2048x2048",
            image_size=2048,
            channels=1,
            width=8,
            grown_from=64,
            native_ramp=690,
            stages=(64, 128, 256, 512, 1024, 2048),
            generator_learning_rate=0.0001,
            discriminator_learning_rate=0.0001,
            batch_size=8,
            epochs=20,
        ),
        # A.Y. Noori, "Generating Medical Chest X-Ray Images using GAN", 2024. The paper's
        # "sizes" 512, 256, 128, 64 are the tutorial's channel counts; its images are 64x64.
        dataclasses.replace(
            _TUTORIAL,
            name="noori2024",
            summary="Noori 2024: the tutorial DCGAN in one channel, beta_1 0.55, batch 50",
            channels=1,
            beta_1=0.55,
            batch_size=50,
        ),
        # B. Davoodi and M. Lo Giudice, "Synthetic of Chest X-ray Images".
        dataclasses.replace(
            _TUTORIAL,
            name="davoodi2021",
            summary="Davoodi & Lo Giudice: one DCGAN 64x64x1 a class, uniform latent, dropout in D",
            channels=1,
            latent_distribution="uniform",
            discriminator_dropout=(0.5, 0.0, 0.5, 0.25),
            batch_size=32,
            epochs=200,
        ),
    )
}


def recipe_for(films: int) -> Recipe:
    """Return the recipe for so many films, where none is named.

    >>> recipe_for(60).name, recipe_for(100_000).name
    ('small_data', 'default')
    """
    return RECIPES["small_data" if films < FEW_FILMS else "default"]
