"""What the values of y stand for: the slots of the data's classes, and slots that belong to none.

Nothing here imports torch.
"""

from dataclasses import dataclass

from ssl_dgm.config import Config, UserError, needs_labels
from ssl_dgm.data.source import Source

LEAST_SHARE = 0.001  # of the rows, for a slot to be in use


@dataclass(frozen=True)
class Slots:
    """The values of y: slot c < C belongs to class c, the others to no class.

    A class without a labelled row is hidden. Its slot is free, as those are that belong to no class: what a free slot
    means is for training to find out, and for `evaluation.clusters` to tell afterwards.
    """

    num_classes: int  # C
    num_slots: int
    labelled: tuple[int, ...]  # classes that have labelled rows, ascending

    @property
    def hidden(self) -> tuple[int, ...]:
        """The other classes, ascending."""
        return tuple(c for c in range(self.num_classes) if c not in self.labelled)

    @property
    def num_free(self) -> int:
        """Slots that no labelled row is ever in."""
        return self.num_slots - len(self.labelled)

    @property
    def prior(self) -> tuple[float, ...] | None:
        """p(y) of every slot; None where it is uniform.

        1/C for the slot of a labelled class, and what that leaves shared equally by the free slots.
        """
        if not self.labelled or self.num_slots == self.num_classes:
            return None
        of_class = 1 / self.num_classes
        of_free = (1 - len(self.labelled) * of_class) / self.num_free
        return tuple(of_class if slot in self.labelled else of_free for slot in range(self.num_slots))

    @classmethod
    def of(cls, config: Config, source: Source) -> "Slots":
        """The slots that the settings `classes` and `labels` ask for with these data.

        Raises:
            UserError: for a class that the data do not have or that is neither labelled nor hidden, and for extra slots
                that no probability would be left for.
        """
        c, k, name = config.classes, source.num_classes, source.name
        if not k and needs_labels(config):
            raise UserError(
                f"data={name} has no classes, and model={config.model.name} needs some; use model=m1 classifier=none, "
                "model=avae, or model=cvae condition=center"
            )
        if not k:
            return cls(0, 0, ())
        for setting, classes in (("labelled", c.labelled), ("hidden", c.hidden)):
            if unknown := [label for label in classes or () if label >= k]:
                has = f"{name} has the classes 0 to {k - 1}"
                raise UserError(f"classes.{setting}={list(classes or ())} names class {unknown[0]}, and {has}")
        every = set(range(k))
        if c.labelled is not None and c.hidden is not None and (lacking := every - {*c.labelled, *c.hidden}):
            raise UserError(
                f"class {min(lacking)} of {name} is neither in classes.labelled={list(c.labelled)} nor in "
                f"classes.hidden={list(c.hidden)}; add it to one, or leave one of the two out"
            )
        labelled = every - set(c.hidden or ()) if c.labelled is None else set(c.labelled)
        if config.labels == 0:
            labelled = set()
        if config.labels and not labelled:
            raise UserError(
                f"classes.hidden={list(c.hidden or ())} hides every class of {name} and labels={config.labels}; use "
                "labels=0 for clusters"
            )
        if c.extra and labelled == every:
            raise UserError(
                f"classes.extra={c.extra} adds slots that p(y) has no share for, since every class of {name} is "
                f"labelled; hide a class with classes.hidden=[{k - 1}], or use labels=0 for clusters"
            )
        return cls(k, k + c.extra, tuple(sorted(labelled)))
