"""Ways to cut a tensor into boxes: lists of (offsets, sizes)."""

import itertools


def chunks(length, count):
    """torch.chunk: pieces of the ceiling, the last ones short or empty."""
    step = -(-length // count) if length else 0
    starts = [min(i * step, length) for i in range(count)]
    return [(s, min(step, length - s)) for s in starts]


def grid(shape, counts):
    """An N-d mesh: counts[d] pieces along axis d."""
    axes = [chunks(n, k) for n, k in zip(shape, counts)]
    return [(tuple(o for o, _ in cell), tuple(n for _, n in cell))
            for cell in itertools.product(*axes)]


def tiling(shape, rng, count):
    """A random irregular tiling: cut one box in two, `count` times."""
    boxes = [((0,) * len(shape), tuple(shape))]
    for _ in range(count):
        offsets, sizes = boxes.pop(rng.integers(len(boxes)))
        axes = [d for d, n in enumerate(sizes) if n > 1]
        if not axes:
            boxes.append((offsets, sizes))
            continue
        axis = axes[rng.integers(len(axes))]
        cut = int(rng.integers(1, sizes[axis]))
        boxes += split(offsets, sizes, axis, cut)
    order = rng.permutation(len(boxes))
    return [boxes[i] for i in order]


def split(offsets, sizes, axis, cut):
    low, high, base = list(sizes), list(sizes), list(offsets)
    low[axis] = cut
    high[axis] = sizes[axis] - cut
    base[axis] += cut
    return [(tuple(offsets), tuple(low)), (tuple(base), tuple(high))]
