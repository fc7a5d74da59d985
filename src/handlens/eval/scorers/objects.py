"""Which of the 80 COCO objects an answer names: words, their plurals, and what else people call a thing.

Boundary: text in, names of objects out. The table of words is our own. Plurals are formed from the table, so the
answer needs no tagger and no word list of a language; tests compare them with simplemma and inflect.

Source: the method of CHAIR (arXiv 1809.02156): two-word names first, then single words, then synonyms.
"""

import re
from collections.abc import Mapping
from functools import cache

SHORTEST_WORDS = 4
"""Object HalBench takes no objects from an answer of three words or fewer."""

# class: other words for it. A word may stand in one row only.
_TABLE = """
person: people, man, woman, boy, girl, child, kid, baby, toddler, infant, adult, lady, guy, gentleman, teenager, mother,
 father, rider, cyclist, skier, snowboarder, skateboarder, surfer, swimmer, player, batter, catcher, umpire, worker,
 driver, passenger, pedestrian, spectator, chef, waiter, waitress, officer, policeman, soldier, student, teacher,
 tourist, customer, shopper, farmer, bride, groom, crowd, human, individual
bicycle: bike, cycle, tricycle
car: automobile, sedan, taxi, cab, suv, jeep, van, minivan, hatchback, limousine, convertible
motorcycle: motorbike, moped, scooter, motor bike, motor cycle, vespa
airplane: plane, aeroplane, aircraft, jet, jetliner, airliner, biplane, air plane
bus: minibus, coach, school bus, double decker
train: locomotive, tram, railcar, subway train, streetcar
truck: lorry, pickup, pickup truck, fire truck, firetruck, semi truck, dump truck
boat: ship, sailboat, canoe, kayak, yacht, ferry, rowboat, motorboat, speedboat, raft, dinghy, gondola, sailing boat
traffic light: traffic signal, stoplight, stop light, traffic lamp
fire hydrant: hydrant
stop sign:
parking meter:
bench: park bench, pew
bird: pigeon, seagull, gull, duck, goose, swan, owl, parrot, sparrow, crow, eagle, hawk, rooster, flamingo, pelican,
 ostrich, peacock, penguin, hummingbird, heron, robin, duckling
cat: kitten, kitty, feline
dog: puppy, pup, hound, terrier, retriever, bulldog, poodle, labrador, dachshund, corgi, collie, canine
horse: pony, foal, mare, stallion, colt
sheep: lamb, ram, ewe
cow: cattle, calf, bull, ox, heifer
elephant:
bear: polar bear, grizzly, brown bear, black bear, panda
zebra:
giraffe:
backpack: rucksack, knapsack, back pack
umbrella: parasol
handbag: purse, hand bag, shoulder bag
tie: necktie, bow tie
suitcase: luggage, baggage, suit case, briefcase
frisbee: flying disc
skis: ski
snowboard:
sports ball: ball, basketball, football, baseball, tennis ball, volleyball, soccer ball, beach ball
kite:
baseball bat: bat
baseball glove: catcher mitt, mitt
skateboard: longboard, skate board
surfboard: surf board
tennis racket: racket, racquet, tennis racquet
bottle: water bottle, wine bottle, beer bottle
wine glass: wineglass, champagne glass, goblet
cup: mug, teacup, coffee cup
fork:
knife: butter knife, steak knife
spoon: teaspoon, tablespoon
bowl: soup bowl
banana:
apple:
sandwich: burger, hamburger, cheeseburger, panini
orange: tangerine, clementine
broccoli:
carrot:
hot dog: hotdog, frankfurter
pizza: pizza slice
donut: doughnut
cake: cupcake, cheesecake, birthday cake, layer cake
chair: armchair, stool, seat, rocking chair, high chair
couch: sofa, loveseat, settee
potted plant: houseplant, house plant, pot plant
bed: bunk bed, mattress
dining table: table, desk, kitchen table, coffee table
toilet: urinal, commode
tv: television, tv set, television set, flat screen
laptop: laptop computer, notebook computer, macbook
mouse: computer mouse
remote: remote control, tv remote, wii remote
keyboard: computer keyboard
cell phone: phone, mobile phone, smartphone, cellphone, telephone, iphone
microwave: microwave oven
oven: stove, stovetop, kitchen range
toaster:
sink: washbasin, wash basin
refrigerator: fridge, freezer
book: novel, textbook
clock: wall clock, alarm clock, clock tower
vase:
scissors: pair of scissors
teddy bear: stuffed bear, teddy, teddybear
hair drier: hair dryer, hairdryer, blow dryer
toothbrush: tooth brush
"""
# Two-word names in which an object's word means something else.
_NO_OBJECT = (
    "toilet seat, toilet paper, home plate, train track, train station, bus stop, bus station, car park, car seat, "
    "orange juice, apple tree, orange tree, banana tree, cup holder, book shelf, phone booth, dog house, bird house, "
    "bird cage, horse shoe, table tennis, keyboard player, mouse pad, sink hole, boat house, kite string, ski resort, "
    "ski slope, ski lift, bed sheet, clock face, bowl cut, orange color, orange colour, orange shirt, orange light, "
    "tie dye, train of, person of, bear in, cake pan, bottle cap, bench press, oven mitt, knife block, truck bed"
)
_PLURALS = {
    "person": "persons", "people": "", "man": "men", "woman": "women", "child": "children", "gentleman": "gentlemen",
    "policeman": "policemen", "sheep": "", "cattle": "", "ox": "oxen", "goose": "geese", "mouse": "mice",
    "calf": "calves", "knife": "knives",
    "luggage": "", "baggage": "", "skis": "", "scissors": "", "broccoli": "", "aircraft": "",
    "crowd": "crowds", "computer mouse": "computer mice", "butter knife": "butter knives",
    "steak knife": "steak knives", "pair of scissors": "pairs of scissors",
}  # fmt: skip


def plural(word: str) -> str:
    """Return the plural of a word of the table; '' where it has none of its own.

    >>> plural("wine glass"), plural("knife"), plural("sheep")
    ('wine glasses', 'knives', '')
    """
    if word in _PLURALS:
        return _PLURALS[word]
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


@cache
def synonyms() -> Mapping[str, str]:
    """Return words -> class, plurals included; '' for names that hold an object's word but mean another thing."""
    table: dict[str, str] = {}
    for row in re.sub(r",\n ", ", ", _TABLE).strip().splitlines():
        name, _, others = row.partition(":")
        for word in (name, *(other.strip() for other in others.split(",") if other.strip())):
            table |= {form: name for form in (word, plural(word)) if form}
    return table | {name.strip(): "" for name in _NO_OBJECT.split(",")}


CLASSES = tuple(row.partition(":")[0] for row in _TABLE.strip().splitlines() if not row.startswith(" "))


def find_objects(text: str) -> list[str]:
    """Return the objects that a text names, in order, longest names first at every place.

    >>> find_objects("Two men beside a hot dog stand; a toilet seat is up.")
    ['person', 'hot dog']
    """
    table = synonyms()
    words = re.findall(r"[a-z]+", text.lower())
    found, at = [], 0
    while at < len(words):
        for size in (3, 2, 1):
            name = " ".join(words[at : at + size])
            if at + size <= len(words) and name in table:
                found += [table[name]] if table[name] else []
                at += size
                break
        else:
            at += 1
    return found


def rate_objects(answer: str, true: frozenset[str]) -> dict[str, int]:
    """Return how many objects an answer names, how many of them are wrong, and how many true ones it finds.

    Each object counts once. An answer of three words or fewer names none.
    """
    words = answer.split()
    named = set(find_objects(answer)) if len(words) >= SHORTEST_WORDS else set()
    return {
        "named": len(named), "wrong": len(named - true), "found": len(named & true), "true": len(true),
        "words": len(words),
    }  # fmt: skip
