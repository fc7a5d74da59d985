"""What generated pictures say: words, made-up words, numbers, codes, dates.

Boundary: text only. A word is held out by its hash; training text never contains one.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from random import Random

SHOP = """bakery market grocery pharmacy bookshop florist butcher deli kiosk salon garage hotel
motel diner bistro tavern pizzeria gallery museum library cinema theater station terminal bank
clinic dentist laundry nursery hardware furniture optician jeweler tailor barber stationery
outlet boutique warehouse depot workshop studio arcade bazaar emporium store corner express
central riverside lakeside downtown harbor village garden sunrise golden silver royal grand
fresh organic daily happy little green urban classic modern vintage premium family local""".split()
FOOD = """coffee espresso latte cappuccino tea milk bread butter cheese yogurt cream eggs bacon
ham sausage chicken turkey beef pork lamb salmon tuna shrimp rice pasta noodles soup salad
sandwich burger pizza taco burrito bagel muffin cookie brownie cake donut pancake waffle cereal
oatmeal granola honey jam sugar salt pepper garlic onion tomato potato carrot cucumber lettuce
spinach broccoli cabbage celery mushroom pumpkin zucchini avocado apple banana orange lemon lime
grape melon mango peach pear plum cherry kiwi strawberry blueberry raspberry coconut almond
walnut peanut cashew chocolate vanilla caramel cinnamon ginger basil oregano parsley mint
ketchup mustard mayonnaise vinegar olives pickles hummus tofu juice soda water lemonade cider
beer wine whiskey vodka biscuit croissant baguette pretzel popcorn chips crackers candy gum
sorbet pudding omelet lasagna ravioli risotto curry stew kebab falafel sushi ramen""".split()
PRODUCT = """shampoo soap toothpaste toothbrush towel tissue napkin detergent bleach sponge
bucket broom candle battery charger cable adapter headphones speaker keyboard mouse monitor
laptop tablet camera printer scanner router lamp bulb switch socket plug hammer wrench
screwdriver drill nails screws bolt glue tape rope chain ladder paint brush roller bottle jar
can box bag basket pan kettle toaster blender mixer oven fridge freezer microwave plate
bowl cup mug glass fork knife spoon tray pillow blanket sheet mattress curtain carpet mirror
chair table desk shelf drawer cabinet sofa clock watch wallet belt jacket coat shirt jeans
skirt dress socks shoes boots sandals gloves scarf hat umbrella backpack suitcase notebook pencil
pen eraser ruler stapler envelope stamp folder paper scissors calendar magazine newspaper
novel puzzle toy doll ball bicycle helmet skateboard tent lantern compass vitamin bandage
thermometer sunscreen lotion perfume lipstick razor comb""".split()
PLACE = """london paris berlin madrid rome vienna lisbon dublin oslo warsaw prague athens cairo
tokyo seoul beijing delhi mumbai sydney toronto boston chicago denver seattle portland austin
houston dallas phoenix atlanta miami orlando memphis detroit oakland lima quito havana bogota
street avenue road lane drive court square bridge tower castle palace church temple park forest
mountain river lake island beach valley desert canyon harbor airport north south east west upper
lower main maple cedar birch willow elm pine chestnut hillside meadow orchard spring summer
autumn winter""".split()
PERSON = """james mary robert linda john susan michael karen david nancy william lisa richard
betty thomas helen charles sandra daniel donna matthew carol anthony ruth mark sharon steven
laura paul sarah andrew emma joshua olivia kevin sophia brian amelia george grace edward chloe
peter zoe henry alice oscar clara victor nora felix ivy hugo ella smith johnson brown jones
garcia miller davis wilson anderson taylor moore jackson martin lee walker hall young king
wright scott hill baker adams nelson carter mitchell roberts turner phillips campbell parker
evans edwards collins stewart morris rogers reed cook morgan bell murphy bailey cooper kelly
howard ward cox gray watson brooks bennett wood barnes ross hughes foster""".split()
OFFICE = """invoice receipt report budget meeting agenda project manager director assistant
engineer analyst designer accountant secretary office department division branch section team
account customer supplier client vendor partner contract order delivery shipment package
courier express standard priority return refund exchange warranty service support sales
marketing finance legal research training security reception conference schedule deadline
quarter annual monthly weekly summary draft final approved pending rejected signed copy
original version page chapter title author editor volume number value amount balance payment
deposit transfer interest income expense profit loss growth margin percent average maximum
minimum quantity quality weight height width length depth speed pressure voltage current power
energy signal sensor module device system software network server client backup password""".split()
WARNING = """caution danger warning notice attention stop exit entrance push pull open closed
private public parking reserved fire alarm emergency hazard toxic flammable fragile handle care
keep away hot cold wet floor slippery high low voltage electric shock smoking forbidden allowed
authorized personnel only please wait here quiet silence no entry one way speed limit dead end
detour bridge work zone ahead slow yield crossing children school hospital restroom elevator
stairs upstairs platform gate track departure arrival delayed canceled boarding customs luggage
lost found information tickets sold free sale discount offer special today tomorrow""".split()
SMALL = """the a of and to in is for on with at by from as it this that not are be was or
all new old big you your we our my his her out up off over under near more less best good long
short left right first last next every each both half full empty yes maybe""".split()
ACCENTED = """café purée fiancé résumé straße grüße müsli bücher küche jalapeño piñata señor niña año
décor cliché entrée sauté fußball süß tür grün soufflé flambé mañana español weiß gemüse""".split()

# Words that layouts are made of: free in every split, so they are never held out.
TEMPLATE = frozenset(
    """jan feb mar apr may jun jul aug sep oct nov dec january february march april june july
    august september october november december mon tue wed thu fri sat sun monday tuesday
    wednesday thursday friday saturday sunday com org net www http https usd eur gbp
    total subtotal sub tax vat sum due amount pay paid payment cash card change visa mastercard
    debit credit contactless date time tel phone email qty item items price unit cost
    receipt invoice order thank thanks you for your visit shopping come again see soon welcome
    please keep this goods sold are not refundable have nice day tip discount cashier table served
    store server register terminal no nr name sender recipient brand from to ship weight size made in use by best before
    lot batch serial model net ingredients contains origin color material hello my is
    role company team room badge visitor staff guest warning caution danger notice do touch hot
    the of and kg ml cm mm km lb oz pcs st ave rd street road avenue lane tracking
    product code sku exp ref stock year month city country team score points rank rate share
    population area height speed age color level room hours region group player
    new york red green blue black white gray brown pink low high normal
    order limit area service badge article player person food station paid stock""".split()
)

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fr gr pr tr bl cl fl gl pl sl sc sk sm sn sp st sw qu ch sh th wh x y".split()  # noqa: E501
_VOWELS = "a e i o u a e i o u ai au ea ee ie oa oo ou y".split()
_CODAS = "b d f g k l m n p r s t x z ck ll ss nd nt rk st rt ng mp ft lk".split()


@lru_cache(maxsize=65536)
def is_heldout(word: str) -> bool:
    """True where training must never show the word; case does not matter.

    >>> is_heldout("total")
    False
    """
    word = word.casefold()
    if word in TEMPLATE or len(word) < 4 or not word.isalpha():
        return False
    return zlib.crc32(word.encode()) % 100 < 15


@lru_cache
def pool(name: str, split: str) -> tuple[str, ...]:
    """Return the words of one list (``all`` for every list) that the split may show."""
    lists = {
        "shop": SHOP, "food": FOOD, "product": PRODUCT, "place": PLACE, "person": PERSON,
        "office": OFFICE, "warning": WARNING, "small": SMALL, "accented": ACCENTED,
    }  # fmt: skip
    words = [w for group in lists.values() for w in group] if name == "all" else lists[name]
    wanted = split == "heldout"
    return tuple(sorted({word for word in words if is_heldout(word) == wanted})) or ("item",)


def pseudo_word(rng: Random, split: str, max_chars: int = 18) -> str:
    """Return a word that no list has, so that reading cannot become guessing."""
    wanted = split == "heldout"
    while True:
        word = ""
        for _ in range(rng.choice((1, 2, 2, 2, 3))):
            word += rng.choice(_ONSETS) + rng.choice(_VOWELS)
            if rng.random() < 0.4:
                word += rng.choice(_CODAS)
        if 3 < len(word) <= max_chars and is_heldout(word) == wanted:
            return word


def random_case(rng: Random, word: str) -> str:
    """Return the word in lower, title, upper or rarely mixed case."""
    roll = rng.random()
    if roll < 0.32:
        return word
    if roll < 0.66:
        return word[:1].upper() + word[1:]
    if roll < 0.95:
        return word.replace("ß", "ss").upper() if word.replace("ß", "ss").upper().isascii() else word
    return "".join(c.upper() if rng.random() < 0.5 and c != "ß" and c.isascii() else c for c in word)


def _digits(rng: Random, count: int) -> str:
    return _signs(rng, "0123456789", count)


def _capitals(rng: Random, count: int) -> str:
    return _signs(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", count)


def _signs(rng: Random, signs: str, count: int) -> str:
    """Return the signs that ``count`` calls of ``rng.choice`` would draw, in a third of the time."""
    getrandbits, bits, many, text = rng.getrandbits, len(signs).bit_length(), len(signs), ""
    while len(text) < count:
        place = getrandbits(bits)
        if place < many:
            text += signs[place]
    return text


def price(rng: Random, most: float = 100.0) -> str:
    """Return a price without a sign, two decimals, small ones more often.

    >>> price(Random(1)).count(".")
    1
    """
    cents = round(most * 100 * rng.random() ** 2) + 5
    return f"{cents // 100}.{cents % 100:02d}"


def money(rng: Random) -> str:
    """Return a price with its sign before or after it."""
    amount = price(rng, rng.choice((20.0, 200.0, 9000.0)))
    if rng.random() < 0.15:
        amount = amount.replace(".", ",")
    return rng.choice(("${}", "€{}", "£{}", "{} €", "{}€", "$ {}", "{} USD", "EUR {}")).format(amount)


MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def date(rng: Random) -> str:
    """Return a day between 2015 and 2034 in one of nine formats."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2034)
    name = MONTHS[month - 1]
    return rng.choice((
        f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}",
        f"{month:02d}/{day:02d}/{year}", f"{day:02d}.{month:02d}.{year}",
        f"{day} {name} {year}", f"{name} {day}, {year}", f"{day:02d}-{name}-{year % 100:02d}",
        f"{month}/{day}/{year % 100:02d}", f"{day}.{month}.{year % 100:02d}",
    ))  # fmt: skip


def time(rng: Random) -> str:
    """Return a time of day, 24 hours or with AM and PM."""
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    return rng.choice((
        f"{hour:02d}:{minute:02d}", f"{hour:02d}:{minute:02d}:{rng.randint(0, 59):02d}",
        f"{(hour - 1) % 12 + 1}:{minute:02d} {'PM' if hour > 11 else 'AM'}",
    ))  # fmt: skip


def code(rng: Random) -> str:
    """Return an article, serial or order code such as KX-4821."""
    two, three = _capitals(rng, 2), _capitals(rng, 3)
    return rng.choice((
        f"{two}-{_digits(rng, 4)}", f"{three}{_digits(rng, 3)}", f"#{_digits(rng, 5)}",
        f"{two}{_digits(rng, 2)}-{_digits(rng, 3)}", f"{_digits(rng, 3)}-{three}",
        f"{two[0]}{_digits(rng, 1)}{two[1]}{_digits(rng, 1)}", f"No.{_digits(rng, 4)}",
        f"{_digits(rng, 4)}/{_digits(rng, 2)}", f"{three}_{_digits(rng, 2)}", _digits(rng, 8),
    ))  # fmt: skip


def phone(rng: Random) -> str:
    """Return a telephone number."""
    d = rng.choice(("({}) {}-{}", "+1 {} {} {}", "{}-{}-{}", "{} {} {}", "0{} {}{}", "+44 {} {}{}"))
    return d.format(_digits(rng, 3), _digits(rng, 3), _digits(rng, 4))


def address(rng: Random, split: str) -> str:
    """Return a web or mail address made of words of the split."""
    words = pool("person", split) + pool("shop", split)
    one, two = rng.choice(words), rng.choice(words)
    end = rng.choice(("com", "org", "net"))
    return rng.choice((f"{one}@{two}.{end}", f"www.{two}.{end}", f"{two}.{end}", f"{one}.{end}/{two}"))


def number(rng: Random) -> str:
    """Return something with digits: count, price, date, time, share, measure or code."""
    make: Callable[[Random], str] = rng.choice((money, date, time, code, code, phone, _count, _share, _measure))
    return make(rng)


def _count(rng: Random) -> str:
    value = rng.randrange(10 ** rng.randint(1, 6))
    return rng.choice((f"{value}", f"{value:,}", f"{value / 10:.1f}", f"{rng.randint(1, 99)}x", f"-{value}"))


def _share(rng: Random) -> str:
    return rng.choice((f"{rng.randint(0, 100)}%", f"{rng.randint(0, 999) / 10}%", f"-{rng.randint(5, 80)} %"))


def _measure(rng: Random) -> str:
    value = rng.choice((str(rng.randint(1, 999)), f"{rng.randint(1, 99) / 10}"))
    return rng.choice((
        f"{value} kg", f"{value} g", f"{value} ml", f"{value} cm", f"{value}mm", f"{value} km",
        f"{rng.randint(-30, 250)} °C", f"{rng.randint(-20, 220)}°F", f"{value} lb", f"{value} oz",
        f"{rng.randint(1, 40)}–{rng.randint(41, 99)}",
    ))  # fmt: skip


_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~€£°–"


def symbols(rng: Random) -> str:
    """Return 2 to 6 random characters: the only way to learn the rare ones."""
    letters = _MARKS + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyzéüßñ"
    # every third is a mark, so that no run of letters is long enough to be a word
    return "".join(
        rng.choice(_MARKS if i % 3 == 2 or rng.random() < 0.2 else letters) for i in range(rng.randint(2, 6))
    )


_FRAMES = ("{}.", "{},", "{}!", "{}?", "{}:", "{};", "({})", '"{}"', "'{}'", "[{}]", "{}'s", "{} -",
           "{} &", "{} +", "{} /", "*{}", "<{}>", "@{}", "#{}", "{} =", "{{{}}}", "{}_", "~{}")  # fmt: skip


def token(rng: Random, split: str) -> str:
    """Return one piece of text: word, made-up word, number or symbols, by the house mixture."""
    roll = rng.random()
    if roll < 0.03:
        return symbols(rng)
    if roll < 0.30:
        return address(rng, split) if rng.random() < 0.04 else number(rng)
    if roll < 0.53:
        word = pseudo_word(rng, split)
    elif roll < 0.60:
        word = rng.choice(pool("small", split))
    elif roll < 0.62:
        word = rng.choice(pool("accented", split))
    else:
        word = rng.choice(pool("all", split))
    word = random_case(rng, word)
    return rng.choice(_FRAMES).format(word) if rng.random() < 0.14 else word


def phrase(rng: Random, split: str, min_chars: int = 3, max_chars: int = 28) -> str:
    """Return one line of text of the wanted length, without double spaces."""
    target = rng.randint(min_chars, max_chars)
    text = ""
    for _ in range(24):
        piece = token(rng, split)
        longer = f"{text} {piece}" if text else piece
        if len(longer) <= max_chars:
            text = longer
        if len(text) >= target:
            break
    return text if len(text) >= min_chars else code(rng)[:max_chars]
