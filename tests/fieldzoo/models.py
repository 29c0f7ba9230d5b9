"""Every kind of field and relation that a look-up may meet and the shop has no use for."""

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Mood(models.IntegerChoices):
    """Choices whose values are no text."""

    CALM = 1
    WILD = 2


class Keeper(models.Model):
    """Is pointed at by a field that is not its key."""

    code = models.CharField(max_length=10, unique=True)
    boss = models.ForeignKey("self", models.CASCADE, null=True)


class Animal(models.Model):
    """One field of each kind."""

    age = models.IntegerField(null=True)
    weight = models.DecimalField(max_digits=12, decimal_places=8, null=True)
    worth = models.DecimalField(max_digits=40, decimal_places=2, null=True)
    speed = models.FloatField(null=True)
    tame = models.BooleanField(null=True)
    mood = models.IntegerField(choices=Mood, null=True)
    born_on = models.DateField(null=True)
    fed_at = models.DateTimeField(null=True)
    sleeps_at = models.TimeField(null=True)
    nap = models.DurationField(null=True)
    chip = models.UUIDField(null=True)
    dna = models.BinaryField(null=True)
    photo = models.FileField(null=True, blank=True)
    habits = models.JSONField(null=True)
    keeper = models.ForeignKey(Keeper, models.CASCADE, to_field="code", null=True)
    # A database somebody else writes to: the row at the other end may be missing.
    mother = models.ForeignKey(
        "self", models.DO_NOTHING, null=True, db_constraint=False, related_name="children"
    )
    friends = models.ManyToManyField("self", symmetrical=False, related_name="liked_by")
    notes = GenericRelation("Note")

    @property
    def label(self) -> str:
        return f"animal {self.age}"

    @property
    def broken(self) -> str:
        raise AttributeError("no such luck")

    def shout(self) -> str:
        return "!"


class Passport(models.Model):
    """One-to-one: an animal has none, or one."""

    animal = models.OneToOneField(Animal, models.CASCADE)
    number = models.CharField(max_length=10)


class Note(models.Model):
    """A relation whose other end only the row knows."""

    # No constraint: tables of apps without migrations, such as this one, are made first.
    content_type = models.ForeignKey(ContentType, models.CASCADE, db_constraint=False)
    object_id = models.PositiveIntegerField()
    about = GenericForeignKey()


class Club(models.Model):
    """Relations whose table is a model of its own, and that go both ways."""

    members = models.ManyToManyField(Keeper, through="Membership")
    friends = models.ManyToManyField("self", blank=True)


class Membership(models.Model):
    """The table of a many-to-many relation, with more than its two keys."""

    club = models.ForeignKey(Club, on_delete=models.CASCADE)
    keeper = models.ForeignKey(Keeper, on_delete=models.CASCADE)
    since = models.DateField(null=True)


class Zoo(models.Model):
    """Takes both ends of a relation along when it is deleted."""


class Sign(models.Model):
    """One end of it."""

    zoo = models.ForeignKey(Zoo, models.CASCADE, null=True)


class Cage(models.Model):
    """The other end of it."""

    zoo = models.ForeignKey(Zoo, models.CASCADE, null=True)
    signs = models.ManyToManyField(Sign)


class SignProxy(Sign):
    """The first end, by another name."""

    class Meta:
        proxy = True


class LitSign(Sign):
    """The first end, with a table of its own beside."""

    colour = models.CharField(max_length=10)


class NeonSign(LitSign):
    """A child of the child."""


class Board(models.Model):
    """Something with a key that is not called ``id``."""

    board_id = models.AutoField(primary_key=True)


class SignBoard(Sign, Board):
    """A child of two parents, each with a key of its own."""
