"""From a configuration, a data set and a plan to the objects of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.config.sections import RunConfig
from edge_trgl.data import Augment, DatasetInfo
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.visits import JobSize
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.losses import CrossEntropy, InfoPro, LocalLoss, PredSim
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Multipliers, Transport
from edge_trgl.networks.catalogue import build_chain
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.cutting import Net
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.errors import UsageError


def make_chain(config: RunConfig, info: DatasetInfo, net: Net | None = None, *, paged: bool = False) -> Chain:
    """The chain that the configuration asks for, its blocks grouped by depth. Call it on the device meta.

    `net`: the model, where it is cut already. `paged`: end-to-end training keeps the modules; else the whole net
    is one. Both give the same weights.

    Raises:
        UsageError: there is no such model, or a setting is none of its own.
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
    chain = replace(chain, gain=_gain(config, chain), built=chain.built or config.model.pretrained is not None)
    chain = with_heads(config, chain)
    if config.train.regime != "end-to-end":
        return chain
    return replace(chain if paged else chain.regroup((0,)), end_to_end=True)


def _gain(config: RunConfig, chain: Chain) -> float | None:
    if config.model.gain is not None and chain.gain is None:
        raise UsageError(
            f"model.gain is of the orthogonal initialisation; {chain.name} has the weights that its blocks drew",
            hint="Leave it out.",
        )
    return chain.gain if config.model.gain is None else config.model.gain


def with_heads(config: RunConfig, chain: Chain) -> Chain:
    """The chain with the heads that the configuration names; with its own where it leaves them open.

    Raises:
        UsageError: their number is not that of the modules.
    """
    wanted = config.model.heads()
    if wanted is None or wanted.auto:
        return chain
    if len(wanted.names) == 1:
        return replace(chain, head=wanted.names[0])
    if len(wanted.names) != len(chain):
        raise UsageError(
            f"--head lists {len(wanted.names)} heads for the {len(chain)} modules of {chain.name}",
            hint="Name one for all modules, or one for each.",
        )
    return replace(chain, head=wanted.names)


def stored_net(facts: RunFacts) -> Net | None:
    """The model that was cut for the run, if it was not a chain already."""
    return Net.from_document(facts.net) if facts.is_cut and facts.net else None


def planned_chain(config: RunConfig, info: DatasetInfo, layout: ChainLayout, net: Net | None = None) -> Chain:
    """The chain in the modules, and with the heads, that planning settled on. Call it on the device meta."""
    chain = make_chain(config, info, net, paged=True).regroup(layout.starts)
    return replace(chain, head=layout.heads, frozen=config.train.freeze)


def step_config(config: RunConfig, *, recompute: str = "none", micro_batch: int | None = None) -> StepConfig:
    """How modules are stepped; end-to-end training, the baseline, has no transport term.

    `recompute`: a level of `Recompute`, as the plan names it.
    """
    wanted = config.transport
    enabled = wanted.enabled and config.train.regime != "end-to-end"
    multipliers = Multipliers(
        first=wanted.lambda_first,
        growth=wanted.growth,
        every=wanted.every,
        by_depth=wanted.lambda_start == "by-depth",
    )
    transport = Transport(
        tau=wanted.tau if enabled and not wanted.multipliers else None,
        reduction=wanted.reduction,
        power=wanted.p,
        multipliers=multipliers if enabled and wanted.multipliers else None,
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
    )


def local_loss(config: RunConfig) -> LocalLoss:
    """The loss that the transport term is added to."""
    wanted = config.loss
    if wanted.name == "cross-entropy":
        return CrossEntropy()
    if wanted.name == "predsim":
        return PredSim(beta=wanted.beta)
    contrast = wanted.name == "infopro-contrast"
    return InfoPro(contrast=contrast, lambda1=wanted.lambda1, lambda2=wanted.lambda2)


def check_data(config: RunConfig, info: DatasetInfo) -> None:
    """Refuse to reconstruct what has no scale, and to normalise a batch of one.

    Raises:
        UsageError: the loss compares with images from 0 to 1, and the data are floats; or the short batch that is
            to be kept is a single sample.
    """
    num_images, size = info.splits["train"].num_images, config.train.batch_size
    if config.train.short_batch == "keep" and num_images % size == 1:
        raise UsageError(
            f"train.short_batch keep leaves a batch of one of {num_images} images",
            hint="Choose another --batch-size: a batch norm needs two samples.",
        )
    if config.loss.name.startswith("infopro") and info.dtype != "uint8":
        raise UsageError(
            f"loss.name {config.loss.name} reconstructs pixels from 0 to 1, and these data are floats",
            hint="Give images of bytes, or choose predsim.",
        )


def augmentation(config: RunConfig, info: DatasetInfo) -> Augment:
    """Crop and flip as configured; without a number, the crop pads by a sixteenth of the image's side.

    Windows stay as they are: a time series has no mirror image, and what may be done to it depends on its sensors.
    """
    if not config.data.augment or len(info.input_shape) != 3:
        return Augment(crop_padding=0, flip=False)
    padding = config.data.crop_padding
    return Augment(min(info.shape[:2]) // 16 if padding is None else padding, config.data.flip)


def job_size(config: RunConfig, num_modules: int, num_samples: int) -> JobSize:
    """The size of a pass over `num_samples`, in samples and batches."""
    return JobSize(
        num_modules=num_modules,
        num_samples=num_samples,
        batch_size=config.train.batch_size,
        augmented=config.data.augment,
        keeps_short=config.train.short_batch == "keep",
    )


def training_schedule(config: RunConfig, num_modules: int, chunk: int) -> Schedule:
    """The regime with its lengths. End-to-end training of several modules is paged.

    Raises:
        UsageError: the list of epochs, or how many modules are frozen, does not suit the number of modules.
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
        cached=config.train.cache,
        prefix="forward" if config.train.prefix == "frozen" else "ascend",
        frozen=config.train.freeze,
        paged=config.train.regime == "end-to-end" and num_modules > 1,
        wants_image=frozenset(module for module in range(num_modules) if loss.of(module, num_modules).wants_image),
    )
