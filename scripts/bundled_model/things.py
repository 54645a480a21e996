"""The things of stories: they are lost, found, wished for, mended and given away.

To add a thing, add an entry here; nothing else needs to change.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """A thing small enough to carry.

    Args:
        noun: Name in one or two words, as in a request.
        looks: Adjectives that suit the thing, separated by spaces.
        use: Its use, as a phrase after "to".
        used: Its use in the past tense.
    """

    noun: str
    looks: str
    use: str
    used: str


# Looks of any thing; a story uses one of these as often as one of the thing's own.
LOOKS = "red blue green yellow purple orange white silver golden little old shiny tiny beautiful".split()

# Kept as a table, with one or two lines per entry.
# fmt: off
THINGS = (
    Thing("lantern", "brass bright rusty", "light the path at night", "lit the path at night"),
    Thing("kite", "striped long-tailed paper", "race with the wind", "raced with the wind"),
    Thing("key", "rusty iron heavy", "open every stubborn door", "opened every stubborn door"),
    Thing("map", "crumpled secret faded", "find the way home from anywhere",
          "found the way home from anywhere"),
    Thing("bell", "copper cracked polished", "call everyone to supper", "called everyone to supper"),
    Thing("drum", "loud round painted", "beat a marching tune", "beat a marching tune"),
    Thing("flute", "wooden reed slender", "play a song for the moon", "played a song for the moon"),
    Thing("umbrella", "spotted wide patched", "keep the rain away", "kept the rain away"),
    Thing("compass", "brass trusty dented", "know where north was", "knew where north was"),
    Thing("teapot", "chipped round china", "pour tea for every guest", "poured tea for every guest"),
    Thing("blanket", "woolly warm patched", "keep warm on cold nights", "kept warm on cold nights"),
    Thing("scarf", "striped woolly long", "keep out the winter wind", "kept out the winter wind"),
    Thing("hat", "pointed floppy feathered", "look a little taller", "looked a little taller"),
    Thing("crown", "paper crooked sparkling", "feel like royalty for a day", "felt like royalty all day"),
    Thing("ring", "thin magic sparkling", "remember an old promise", "remembered an old promise"),
    Thing("mirror", "round cracked polished", "send flashes of sunlight",
          "sent flashes of sunlight across the sky"),
    Thing("spoon", "wooden long bent", "stir the biggest pot of soup", "stirred the biggest pot of soup"),
    Thing("basket", "woven round sturdy", "carry berries home", "carried berries home"),
    Thing("balloon", "round floating bright", "see which way the wind blew",
          "watched which way the wind blew"),
    Thing("ball", "bouncy striped rubber", "play catch until dark", "played catch until dark"),
    Thing("marble", "glass swirly smooth", "win every game on the doorstep",
          "won every game on the doorstep"),
    Thing("whistle", "tin loud wooden", "call for help from far away", "called friends from far away"),
    Thing("telescope", "long brass folding", "look at the craters of the moon",
          "looked at the craters of the moon"),
    Thing("pocket watch", "ticking round polished", "be on time for once", "never came late again"),
    Thing("music box", "tinkling painted wooden", "fall asleep to its tune", "fell asleep to its tune"),
    Thing("paintbrush", "fine soft magic", "paint the colors of the sunset",
          "painted the colors of the sunset"),
    Thing("book", "thick dusty leather", "read one more page before bed", "read one more page before bed"),
    Thing("letter", "folded secret long", "hear from someone far away", "heard from someone far away"),
    Thing("feather", "fluffy speckled soft", "tickle a friend awake", "tickled a friend awake"),
    Thing("seashell", "pink curly smooth", "listen to the sea", "listened to the sea"),
    Thing("pebble", "smooth speckled round", "have something to hold in the dark",
          "held it tight in the dark"),
    Thing("button", "round brass wooden", "close a favorite coat", "closed a favorite coat"),
    Thing("acorn", "smooth brown perfect", "grow an oak one day", "dreamed of the oak it would be"),
    Thing("pumpkin", "round heavy enormous", "make soup for the whole street",
          "made soup for the whole street"),
    Thing("cake", "sweet tall strawberry", "make any day a birthday", "made an ordinary day a birthday"),
    Thing("candle", "tall beeswax flickering", "chase the shadows away", "chased the shadows away"),
    Thing("wagon", "wooden squeaky sturdy", "pull heavy loads up the hill", "pulled heavy loads up the hill"),
    Thing("sled", "fast wooden painted", "fly down the snowy hill", "flew down the snowy hill"),
    Thing("toy boat", "wooden painted tin", "sail across every puddle", "sailed across every puddle"),
    Thing("bicycle", "squeaky fast rusty", "ride all the way around the hill",
          "rode all the way around the hill"),
    Thing("ladder", "tall wooden wobbly", "reach the highest shelf", "reached the highest shelf"),
    Thing("rope", "long strong knotted", "climb up to high places", "climbed up to high places"),
    Thing("quilt", "patchwork soft warm", "make a tent on rainy days", "made a tent on rainy days"),
    Thing("pillow", "soft plump feathery", "have sweeter dreams", "had the sweetest dreams"),
    Thing("puppet", "wooden funny cloth", "put on little plays", "put on little plays"),
    Thing("necklace", "pearl glittering amber", "feel close to Grandmother", "felt close to Grandmother"),
    Thing("violin", "polished small sweet", "play at every dance", "played at every dance"),
    Thing("trumpet", "brass loud shining", "wake the sun every morning", "woke the sun every morning"),
    Thing("snow globe", "glass round glittering", "see snow in the middle of summer",
          "saw snow in the middle of summer"),
    Thing("kettle", "copper whistling black", "make cocoa on cold evenings", "made cocoa on cold evenings"),
    Thing("apple", "sweet crisp rosy", "have something sweet at lunchtime",
          "had something sweet at lunchtime"),
    Thing("sunflower", "tall bright smiling", "bring summer indoors", "brought summer indoors"),
    Thing("jar of honey", "sticky sweet big", "sweeten the morning porridge",
          "sweetened the morning porridge"),
    Thing("notebook", "tiny leather tattered", "write down every good idea", "wrote down every good idea"),
    Thing("sword", "wooden silver blunt", "feel as brave as a hero", "felt as brave as a hero"),
    Thing("egg", "speckled warm enormous", "find out what was inside", "wondered what was inside"),
    Thing("doll", "rag pretty porcelain", "have someone to tell secrets to", "told it every secret"),
    Thing("wand", "magic crooked sparkling", "turn bad moods into good ones",
          "turned bad moods into good ones"),
    Thing("crystal", "purple glowing pointed", "make rainbows on the wall", "made rainbows on the wall"),
    Thing("shovel", "sturdy rusty small", "dig for buried secrets", "dug for buried secrets"),
    Thing("backpack", "canvas heavy patched", "carry everything that mattered",
          "carried everything that mattered"),
)
# fmt: on
