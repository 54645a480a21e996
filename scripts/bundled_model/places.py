"""The places of stories, each with its own scenes and hiding spots.

To add a place, add an entry here; nothing else needs to change.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place.

    Args:
        noun: Name in one or two words, as in a request.
        preposition: Preposition before "the": in, on, at, by.
        scenes: Two clauses in the past tense that describe the place.
        spots: Two phrases for spots where a small thing can lie.
    """

    noun: str
    preposition: str
    scenes: tuple[str, str]
    spots: tuple[str, str]


# Kept as a table, with one or two lines per entry.
# fmt: off
PLACES = (
    Place("forest", "in", ("the tall trees whispered in the wind", "the moss was soft and deep"),
          ("under a curly fern", "behind a mossy log")),
    Place("woods", "in", ("the leaves were red and gold", "sunbeams fell between the branches"),
          ("inside a hollow tree", "under a carpet of leaves")),
    Place("ocean", "by", ("the waves were as tall as houses", "gulls cried over the foam"),
          ("at the edge of the foam", "in a shallow tide pool")),
    Place("spaceship", "on", ("a hundred little lights blinked", "the stars slid past the windows"),
          ("under the captain's seat", "behind a blinking panel")),
    Place("zoo", "at", ("children pointed and laughed", "the air smelled of hay and peanuts"),
          ("behind the ticket booth", "under a peanut cart")),
    Place("volcano", "on", ("the ground was warm and black", "smoke curled up from the top"),
          ("in a pocket of black sand", "behind a smoking rock")),
    Place("kitchen", "in", ("pots and pans gleamed on the wall", "something sweet was always in the oven"),
          ("behind the flour bin", "under the sink")),
    Place("hospital", "in", ("the corridors were long and white", "nurses hurried by on soft shoes"),
          ("under a high white bed", "on a windowsill")),
    Place("lighthouse", "at", ("the great lamp turned all night", "the waves boomed against the rocks"),
          ("under the winding stairs", "beside the great lamp")),
    Place("island", "on", ("palm trees leaned over the sand", "the sea was blue on every side"),
          ("under a palm tree", "between two white rocks")),
    Place("harbor", "at", ("little ships rocked in the sun", "the air smelled of salt and tar"),
          ("behind a stack of crates", "inside a coil of wet nets")),
    Place("meadow", "in", ("the grass was full of daisies", "the wind made waves in the grass"),
          ("among the daisies", "under a tuft of clover")),
    Place("village", "in", ("smoke curled from every chimney", "the houses had red roofs and blue doors"),
          ("beside the old well", "under a wooden bench")),
    Place("castle", "in", ("long flags flew from the walls", "every step echoed in the halls"),
          ("behind a suit of armor", "under the great table")),
    Place("cave", "in", ("drops of water went plip and plop", "the walls sparkled in the dark"),
          ("behind a pointed stone", "on a cold ledge")),
    Place("mountain", "on", ("the air was thin and clear", "the snow shone on the peak"),
          ("behind a gray boulder", "under a twisted pine")),
    Place("valley", "in", ("the mist lay as white as milk", "every shout came back as an echo"),
          ("beside a bubbling spring", "under a wild plum tree")),
    Place("desert", "in", ("the sand was hot and golden", "the stars were bigger than anywhere else"),
          ("at the foot of a dune", "in the shade of a cactus")),
    Place("jungle", "in", ("thick vines hung from every branch", "the leaves were as big as doors"),
          ("under an enormous leaf", "among the tangled vines")),
    Place("beach", "on", ("the waves rolled in and out", "the sand was warm and white"),
          ("under a heap of seaweed", "beside an old anchor")),
    Place("farm", "on", ("the hay smelled sweet", "the fields lay in neat green squares"),
          ("under a pile of hay", "behind the milk cans")),
    Place("orchard", "in", ("the branches were heavy with fruit", "pink petals fell like snow"),
          ("at the foot of a pear tree", "among the fallen leaves")),
    Place("garden", "in", ("roses climbed over the wall", "the beans grew taller than a door"),
          ("under a cabbage leaf", "behind the rose bush")),
    Place("library", "in",
          ("the shelves reached up to the ceiling", "it was so quiet that you could hear dust fall"),
          ("behind a row of fat storybooks", "under the reading table")),
    Place("market", "at",
          ("the stalls were bright with fruit", "everyone was shouting about cheese and plums"),
          ("under the cheese stall", "behind a barrel of plums")),
    Place("bakery", "in", ("the air smelled of warm bread", "trays of buns steamed in the window"),
          ("behind a sack of flour", "on top of the oven")),
    Place("museum", "in", ("old bones stood taller than houses", "every glass case held a secret"),
          ("behind a tall statue", "beside a velvet bench")),
    Place("school", "at", ("chalk dust danced in the light", "rows of small coats hung in the hall"),
          ("under a wooden desk", "behind the coat rack")),
    Place("train station", "at",
          ("steam rolled along the platform", "the big hands of the dial never stopped"),
          ("under a pile of suitcases", "beside the ticket window")),
    Place("windmill", "at", ("the great sails creaked round and round", "flour dust hung in the air"),
          ("behind the millstone", "under a heap of sacks")),
    Place("barn", "in", ("the rafters creaked in the wind", "sunlight came in through the cracks"),
          ("up in the hayloft", "behind a rusty plow")),
    Place("attic", "in", ("old trunks stood under the roof", "dust floated in a beam of light"),
          ("inside an old trunk", "behind a dusty curtain")),
    Place("swamp", "in", ("green bubbles rose from the mud", "the reeds rustled and the mud went gloop"),
          ("on a half-sunken log", "among the reeds")),
    Place("pond", "by", ("lily pads floated on the water", "the water was as smooth as glass"),
          ("under a lily pad", "in the soft mud of the bank")),
    Place("lake", "by", ("the water shone like silver", "the hills stood upside down in the water"),
          ("under an upturned boat", "between two smooth stones")),
    Place("river", "by", ("the water hurried over the stones", "willow branches trailed in the water"),
          ("among the willow roots", "on a sandy bank")),
    Place("waterfall", "by", ("a rainbow hung in the spray", "the water roared all day and all night"),
          ("on a wet ledge behind the spray", "under a dripping rock")),
    Place("city", "in", ("the streets were never quiet", "a thousand windows lit up at dusk"),
          ("behind a lamppost", "on a quiet doorstep")),
    Place("park", "in", ("the benches were painted green", "the fountain splashed all day"),
          ("under a green bench", "beside the fountain")),
    Place("playground", "at", ("the swings squeaked to and fro", "the slide was hot from the sun"),
          ("under the slide", "in the corner of the sandbox")),
    Place("greenhouse", "in", ("the glass was foggy and warm", "strange flowers opened only at night"),
          ("between two flowerpots", "under a creeping vine")),
    Place("toy shop", "in", ("tin soldiers stood in the window", "every shelf was full of bright boxes"),
          ("on the highest shelf", "behind a row of tin soldiers")),
    Place("tower", "in", ("the stairs went round and round", "the wind sang in the narrow windows"),
          ("on the very last stair", "under a narrow window")),
    Place("bridge", "on", ("the old stones were warm in the sun", "the water sang far below"),
          ("between two old stones", "at the foot of a lamp")),
    Place("cottage", "in", ("soup always bubbled on the stove", "ivy grew around the door"),
          ("under the little table", "behind the stove")),
    Place("treehouse", "in", ("the floor swayed in the wind", "leaves tapped on the little windows"),
          ("under a loose plank", "beside the little swing")),
    Place("glacier", "on", ("the ice glowed blue and green", "the cold made every breath a cloud"),
          ("in a crack in the ice", "under a drift of snow")),
    Place("vineyard", "in", ("purple grapes hung in long rows", "the hills were striped with green"),
          ("under a basketful of leaves", "at the end of the last row")),
    Place("circus", "at", ("the striped tent flapped in the wind", "the air smelled of popcorn"),
          ("under the front seats", "behind the striped tent")),
    Place("theater", "in", ("the red curtain hung in deep folds", "dust sparkled in the spotlight"),
          ("behind the red curtain", "under the stage")),
    Place("workshop", "in", ("wood shavings curled on the floor", "hammers and saws hung on the wall"),
          ("under the workbench", "in a heap of wood shavings")),
    Place("observatory", "at", ("the round roof opened to the sky", "charts of the stars covered the walls"),
          ("under a chart of the stars", "beside the round window")),
    Place("canyon", "in", ("the red walls rose up to the sky", "every footstep came back twice"),
          ("under a ledge of red rock", "behind a dry bush")),
    Place("palace", "in", ("the floors were so clean that they shone", "a hundred lamps burned in the hall"),
          ("behind the golden throne", "under a silk cushion")),
)
# fmt: on
