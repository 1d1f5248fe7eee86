"""Builds a `Session` from the options of `train.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.task import DetectionTask
from engine.training.autobatch import find_batch_size
from engine.training.options import TrainOptions
from engine.training.resume import restore
from engine.training.safeguards.dry_run import dry_run
from engine.training.session import Session
from models.checkpoints.backbone import load_backbone
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from models.checkpoints.state_dict import load_matching, load_strictly
from models.weights import find_backbone_weights, find_weights
from utils.anchors import check_anchors
from utils.cli import network_size, torchrun_command
from utils.commands.launcher import local_rank
from utils.data.images.memory import check_memory
from utils.data.loader import create_loader
from utils.data.spec import DatasetSpec, load_dataset
from utils.devices import device_indices, select_device, select_one_device
from utils.distributed import is_main_process, main_process_first, rank, world_size
from utils.errors import UserError
from utils.hyp import load_hyp
from utils.losses.detection import scale_gains
from utils.training.ema import ModelEMA
from utils.training.freeze import Freezer
from utils.training.optimizer import smart_optimizer
from utils.training.recomputation import set_recompute
from utils.training.schedule import EarlyStopping, Schedule, accumulation, linear, one_cycle
from utils.training.seeds import init_seeds


def build_session(
    options: TrainOptions, task: DetectionTask, save_dir: Path, checkpoint: Checkpoint | None = None
) -> Session:
    """All parts of a training as `options` (the flags of `train.py`) ask for; `checkpoint` is the one to resume."""
    init_seeds(options.seed + 1 + max(rank(), 0), options.deterministic)
    device = training_device(options)
    hyp = load_hyp(options.hyp)
    hyp["label_smoothing"] = options.label_smoothing or hyp["label_smoothing"]
    with main_process_first():
        spec = load_dataset(options.data)
    names = {0: "item"} if options.single_cls and spec.nc != 1 else spec.names

    net = set_recompute(build_network(options, task, len(names), hyp, checkpoint), options.recompute)
    net = net.to(device).to(memory_format=torch.channels_last)  # less time on a CPU, tensor cores fed right on a GPU
    net.names, net.hyp = names, hyp  # type: ignore[assignment]
    freezer = Freezer(net, options.freeze)
    stride = int(max(net.stride))  # type: ignore[arg-type]
    imgsz = network_size(options.imgsz, stride, minimum=2 * stride)
    amp_dtype = mixed_precision(options, device)
    options = with_batch_size(options, net, imgsz, amp_dtype)
    train_loader, val_loader = build_loaders(options, spec, task, hyp, imgsz, stride)
    if not options.noautoanchor and checkpoint is None:
        check_anchors(label_sizes(train_loader.dataset.index, imgsz), net.model[-1], thr=hyp["anchor_t"], imgsz=imgsz)  # type: ignore[index]
        net.float()

    gains = scale_gains(hyp, net.model[-1].nl, len(names), imgsz)  # type: ignore[index, union-attr, arg-type]
    if is_main_process() and checkpoint is None:
        dry_run(net, task, gains, device)
    accumulate = accumulation(options.batch_size, hyp["nbs"])
    session = Session(
        task=task,
        options=options,
        hyp=hyp,
        names=names,
        save_dir=save_dir,
        device=device,
        model=data_parallel(net, device, options.sync_bn),
        net=net,
        ema=ModelEMA(net),
        freezer=freezer,
        criterion=task.criterion(net, gains, options),
        optimizer=smart_optimizer(
            net,
            options.optimizer,
            lr=hyp["lr0"],
            momentum=hyp["momentum"],
            decay=hyp["weight_decay"] * options.batch_size * accumulate / hyp["nbs"],
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16),
        schedule=build_schedule(options, hyp, accumulate, len(train_loader)),
        stopper=EarlyStopping(options.patience),
        train_loader=train_loader,
        val_loader=val_loader,
        imgsz=imgsz,
        epochs=options.epochs,
        amp_dtype=amp_dtype,
    )
    if checkpoint is not None:
        restore(session, checkpoint)
    return session


def with_batch_size(
    options: TrainOptions, net: nn.Module, imgsz: tuple[int, int], amp_dtype: torch.dtype | None
) -> TrainOptions:
    """`options`, in which ``--batch-size -1`` is replaced by the batch size that fits into memory."""
    if options.batch_size != -1:
        return options
    found = find_batch_size(net, imgsz, amp_dtype, options.optimizer, options.multi_scale)
    return replace(options, batch_size=found)


def training_device(options: TrainOptions) -> torch.device:
    """The device of this process, announced."""
    device = process_device(options.device)
    if device is None:
        each = torchrun_command(len(device_indices(options.device)))
        return select_one_device(options.device, mend=f"each needs a process of its own: {each}")
    if options.batch_size < 1 or options.batch_size % world_size():
        raise UserError(f"--batch-size {options.batch_size} must be a multiple of the {world_size()} processes")
    return select_device(device)


def process_device(name: str) -> torch.device | None:
    """The device of one of several processes, of those that ``--device`` names; None without `torchrun`."""
    if local_rank() == -1:
        return None
    if name == "mps":
        raise UserError("--device mps: one process is all that Metal serves; start without torchrun")
    indices = device_indices(name) if name else list(range(torch.cuda.device_count()))
    if not indices:
        return torch.device("cpu")
    if local_rank() >= len(indices):
        raise UserError(f"process {local_rank()} has no GPU: --device {name or indices} names too few")
    return torch.device("cuda", indices[local_rank()])


def build_network(
    options: TrainOptions, task: DetectionTask, nc: int, hyp: dict[str, Any], checkpoint: Checkpoint | None
) -> nn.Module:
    """The model: that of `checkpoint`, or of `--cfg` with what fits of `--weights` or `--backbone-weights` put in."""
    if checkpoint is not None:
        net = task.build_model(checkpoint.cfg, nc=nc)
        load_strictly(net, checkpoint.state_dict, "the checkpoint to resume")
        return net
    anchors = hyp.get("anchors") or None
    if not options.weights:
        net = task.build_model(options.cfg or task.default_cfg, nc=nc, anchors=anchors)
        if options.backbone_weights:
            with main_process_first():
                path = find_backbone_weights(options.backbone_weights)
            load_backbone(net, path, options.backbone_norm, trust=options.trust)
        return net
    with main_process_first():
        path = find_weights(options.weights)
    start = load_checkpoint(path, trust=options.trust)
    net = task.build_model(options.cfg or task.cfg_from_checkpoint(start.cfg), nc=nc, anchors=anchors)
    keep_anchors = ("anchor",) if options.cfg or anchors else ()
    load_matching(net, start.weights, exclude=keep_anchors, source=str(path))
    return net


def build_loaders(
    options: TrainOptions,
    spec: DatasetSpec,
    task: DetectionTask,
    hyp: dict[str, Any],
    imgsz: tuple[int, int],
    stride: int,
) -> tuple[Any, Any]:
    """This process's share of the training batches and of the validation batches."""
    missing = [split for split in ("train", "val") if split not in spec.splits]
    if missing:
        raise UserError(f"{spec.yaml_file}: no '{missing[0]}:' split; training needs train: and val:")
    data = task.data_options(options)
    shared = {
        **data,
        "stride": stride,
        "nc": spec.nc,
        "single_cls": options.single_cls,
        "polygons": data["polygons"] or hyp["copy_paste"] > 0,
        "cache": options.cache,
        "workers": options.workers,
        "seed": options.seed,
    }
    train_loader = create_loader(
        spec.splits["train"], imgsz, options.batch_size // world_size(), augment=True, hyp=hyp,
        rect=options.rect, rank=rank(), image_weights=options.image_weights, quad=options.quad,
        shuffle=True, prefix="train: ", **shared,
    )  # fmt: skip
    val_loader = create_loader(
        spec.splits["val"], imgsz, options.batch_size // world_size() * 2, rect=True, pad=0.5, rank=rank(),
        prefix="val: ", **{**shared, "cache": "" if options.noval else options.cache},
    )  # fmt: skip
    check_memory(min(options.batch_size // world_size(), len(train_loader.dataset)), imgsz)
    return train_loader, val_loader


def label_sizes(index: Any, imgsz: tuple[int, int]) -> Any:
    """Widths and heights (n, 2) in pixels of all labels, with each image scaled to fit into `imgsz`."""
    import numpy as np

    shapes = index.shapes.astype(np.float64)  # (n, 2) height, width
    ratio = np.minimum(imgsz[0] / shapes[:, 0], imgsz[1] / shapes[:, 1])
    scaled = (shapes * ratio[:, None])[:, ::-1]
    return np.repeat(scaled, np.diff(index.offsets), axis=0) * index.boxes[:, 2:4]


def mixed_precision(options: TrainOptions, device: torch.device) -> torch.dtype | None:
    """The number format of autocast, None for full precision (always on the CPU, where it would be slower)."""
    if not options.amp or device.type != "cuda":
        return None
    return torch.bfloat16 if options.amp_dtype == "bf16" else torch.float16


def build_schedule(options: TrainOptions, hyp: dict[str, Any], accumulate: int, batches: int) -> Schedule:
    """Decay over the epochs to `lrf`, linear or (--cos-lr) cosine, and a warm-up of at least 100 batches."""
    decay = (one_cycle if options.cos_lr else linear)(1.0, hyp["lrf"], options.epochs)
    return Schedule(
        decay=decay,
        momentum=hyp["momentum"],
        accumulate=accumulate,
        warmup_steps=max(round(hyp["warmup_epochs"] * batches), 100),
        warmup_momentum=hyp["warmup_momentum"],
        warmup_bias_lr=hyp["warmup_bias_lr"],
    )


def data_parallel(net: nn.Module, device: torch.device, sync_bn: bool) -> nn.Module:
    """`net`, wrapped in DistributedDataParallel where several processes train, with --sync-bn if asked."""
    if local_rank() == -1:
        return net
    if sync_bn:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return nn.parallel.DistributedDataParallel(net, device_ids=[device.index] if device.type == "cuda" else None)
