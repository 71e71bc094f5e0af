"""Builds the engine's objects from a configuration, a data set and a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.config.sections import RunConfig
from edge_trgl.data import Augment, DatasetInfo
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.visits import JobSize
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.learning.step_kinds import StepKind
from edge_trgl.method.losses import CrossEntropy, InfoPro, LocalLoss, PredSim
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Multipliers, Transport
from edge_trgl.networks.catalogue import build_chain
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.heads import DECODER
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.data_summary import augmentation_of
from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net


AUTOENCODER_GAIN = 1.0
"""Of the orthogonal first weights of an autoencoder, as in the authors' scripts; classifiers begin with less."""

COUNTED_TAU = 0.5
"""What stands for a tau that is not chosen yet, in counting: what a step costs does not depend on it."""


def make_chain(config: RunConfig, info: DatasetInfo, net: Net | None = None, *, paged: bool = False) -> Chain:
    """Build the configured chain, its blocks grouped by depth. Call it on the meta device.

    An autoencoder is a single module with a decoder as its head.

    Args:
        config: the run's configuration.
        info: its data set, for the shapes of input and output.
        net: the model as it was cut, if it was.
        paged: keep the modules in end-to-end training, which otherwise makes the whole net one module. Both give
            the same weights.

    Raises:
        UsageError: there is no such model, or it does not have one of the settings.
    """
    chain = build_chain(
        config.model.name,
        input_shape=info.input_shape,
        num_classes=info.num_classes,
        width=config.model.width,
        num_modules=config.model.modules,
        downsample=config.model.downsample,
        net=net,
    )
    chain = _first_blocks(config, chain)
    chain = replace(chain, gain=_gain(config, chain), built=chain.built or config.model.pretrained is not None)
    if not config.loss.reads_labels:
        return replace(chain.regroup((0,)), head=DECODER)
    chain = with_heads(config, chain)
    if config.train.regime != "end-to-end":
        return chain
    return replace(chain if paged else chain.regroup((0,)), end_to_end=True)


def _first_blocks(config: RunConfig, chain: Chain) -> Chain:
    wanted, there_are = config.model.blocks, len(chain.blocks)
    if wanted is None:
        return chain
    if wanted > there_are:
        raise UsageError(
            f"--blocks {wanted}: {chain.name} has {there_are} block{'' if there_are == 1 else 's'}",
            hint="Choose a number up to that.",
        )
    return chain.first(wanted)


def _gain(config: RunConfig, chain: Chain) -> float | None:
    if config.model.gain is not None and chain.gain is None:
        raise UsageError(
            f"model.gain is of the orthogonal initialisation; {chain.name} has the weights that its blocks drew",
            hint="Leave it out.",
        )
    if config.model.gain is not None:
        return config.model.gain
    return AUTOENCODER_GAIN if chain.gain is not None and not config.loss.reads_labels else chain.gain


def with_heads(config: RunConfig, chain: Chain) -> Chain:
    """Return the chain with the configured heads, or with its own if none are configured.

    Raises:
        UsageError: neither one head nor one for each module is named.
    """
    choice = config.model.heads()
    if choice is None or choice.auto:
        return chain
    if len(choice.names) == 1:
        return replace(chain, head=choice.names[0])
    if len(choice.names) != len(chain):
        raise UsageError(
            f"--head lists {len(choice.names)} heads for the {len(chain)} modules of {chain.name}",
            hint="Name one for all modules, or one for each.",
        )
    return replace(chain, head=choice.names)


def stored_net(facts: RunFacts) -> Net | None:
    """Return the model that was cut for the run; None if the model was a chain already."""
    if not facts.is_cut or not facts.net:
        return None
    # Imported here: a network of the catalogue needs none of it.
    from edge_trgl.networks.cutting.net import Net

    return Net.from_document(facts.net)


def planned_chain(config: RunConfig, info: DatasetInfo, layout: ChainLayout, net: Net | None = None) -> Chain:
    """Build the chain with the modules and heads that the plan chose. Call it on the meta device."""
    chain = make_chain(config, info, net, paged=True).regroup(layout.starts)
    return replace(chain, head=layout.heads, frozen=config.train.freeze)


def step_config(config: RunConfig, *, recompute: str = "none", micro_batch: int | None = None) -> StepConfig:
    """Build the configuration of a module's local step.

    End-to-end training, the baseline, has no transport term.

    Args:
        config: the run's configuration.
        recompute: the plan's level of recomputation, one of `Recompute`.
        micro_batch: samples in a micro-batch; None for the whole batch at once.
    """
    section = config.transport
    enabled = section.enabled and config.train.regime != "end-to-end"
    multipliers = Multipliers(
        first=section.lambda_first,
        growth=section.growth,
        every=section.every,
        by_depth=section.lambda_start == "by-depth",
    )
    tau = COUNTED_TAU if section.tau == "auto" else section.tau
    transport = Transport(
        tau=tau if enabled and not section.multipliers else None,
        reduction=section.reduction,
        late_factor=section.late_factor,
        power=section.p,
        multipliers=multipliers if enabled and section.multipliers else None,
    )
    return StepConfig(
        transport=transport,
        loss=local_loss(config),
        label_smoothing=config.train.label_smoothing,
        optimizer=config.train.optimizer,
        momentum=config.train.momentum,
        betas=config.train.betas,
        weight_decay=config.train.weight_decay,
        bfloat16=config.train.precision == "bf16",
        recompute=cast(Recompute, recompute),
        micro_batch=micro_batch,
        early_update="early-update" not in config.budget.without,
        passes=tuple(_passes(config)),
    )


def _passes(config: RunConfig) -> Iterator[StepKind]:
    """The kinds of steps beside those that train: of a prefix in training mode, recalibration, evaluation."""
    if config.train.prefix == "train-mode":
        yield "ascend"
    if config.train.recalibrate:
        yield "recalibrate"
    yield "forward"


def local_loss(config: RunConfig) -> LocalLoss:
    """Build the configured loss, to which the transport term is added."""
    section = config.loss
    if section.name in ("cross-entropy", "autoencoder"):  # the latter is the loss of a decoder instead
        return CrossEntropy()
    if section.name == "predsim":
        return PredSim(beta=section.beta)
    contrast = section.name == "infopro-contrast"
    return InfoPro(contrast=contrast, lambda1=section.lambda1, lambda2=section.lambda2)


def check_data(config: RunConfig, info: DatasetInfo) -> None:
    """Check that the configuration suits the data.

    Raises:
        UsageError: the loss reconstructs pixels in [0, 1] but the data are floats of no known scale; or the short
            batch that is kept would be one sample, which batch norm cannot normalise.
    """
    num_images, size = info.splits["train"].num_images, config.train.batch_size
    if config.train.short_batch == "keep" and num_images % size == 1:
        raise UsageError(
            f"train.short_batch keep leaves a batch of one of {num_images} samples",
            hint="Choose another --batch-size: a batch norm needs two samples.",
        )
    if config.loss.name.startswith("infopro") and info.dtype != "uint8":
        raise UsageError(
            f"loss.name {config.loss.name} reconstructs pixels from 0 to 1, and these data are floats",
            hint="Give images of bytes, or choose predsim.",
        )


def augmentation(config: RunConfig, info: DatasetInfo) -> Augment:
    """Build the configured crop and flip; the default crop padding is a sixteenth of the image's shorter side.

    Windows are not augmented: a mirrored time series means something else, and what is safe depends on the sensor.
    """
    chosen = augmentation_of(config.data, info.shape)
    return Augment(crop_padding=chosen.crop_padding, flip=chosen.flip)


def job_size(config: RunConfig, num_modules: int, num_samples: int) -> JobSize:
    """Return the size of a job on `num_samples` samples."""
    return JobSize(
        num_modules=num_modules,
        num_samples=num_samples,
        batch_size=config.train.batch_size,
        augmented=config.data.augment,
        keeps_short=config.train.short_batch == "keep",
    )


def training_schedule(config: RunConfig, num_modules: int, chunk: int) -> Schedule:
    """Build the training schedule: the regime with its lengths. End-to-end training of several modules is paged.

    Raises:
        UsageError: the epochs or the number of frozen modules do not suit the number of modules.
    """
    if config.train.freeze >= num_modules:
        raise UsageError(
            f"--freeze {config.train.freeze}: the net has {num_modules} module{'' if num_modules == 1 else 's'}",
            hint="At least one must be left to train.",
        )
    loss = local_loss(config)
    return Schedule(
        regime=config.train.regime,
        epochs=parse_epochs(config.train.epochs, num_modules),
        laps=config.train.laps,
        chunk=chunk,
        views=config.train.views,
        cached=config.caches,
        prefix="forward" if config.train.prefix == "frozen" else "ascend",
        frozen=config.train.freeze,
        recalibrates=config.train.recalibrate,
        paged=config.train.regime == "end-to-end" and num_modules > 1,
        wants_image=frozenset(module for module in range(num_modules) if loss.of(module, num_modules).wants_image),
    )
