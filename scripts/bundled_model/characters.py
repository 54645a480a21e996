"""The characters of stories: eighty kinds, with their names, traits and voices.

To add a kind, add an entry here; nothing else needs to change.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Character:
    """A kind of character.

    Args:
        noun: Name of the kind in one word, as in a request.
        he_names: Names for "he", separated by spaces; empty if the kind is never "he".
        she_names: Names for "she", separated by spaces; empty if the kind is never "she".
        traits: Adjectives that suit the kind, separated by spaces.
        moved: Verb for its movement, in the past tense.
        said: Verb for its speech, in the past tense.
    """

    noun: str
    he_names: str
    she_names: str
    traits: str
    moved: str
    said: str


# Traits of any character; a story uses one of these as often as one of the kind's own.
TRAITS = (
    "brave kind shy curious young cheerful lonely gentle stubborn patient forgetful hopeful quiet honest "
    "friendly careful"
).split()

# Kept as a table, with one or two lines per entry.
# fmt: off
CHARACTERS = (
    Character("fox", "Felix Rusty", "Ruby Vixie", "clever quick red", "trotted", "yipped"),
    Character("owl", "Oliver Barnaby", "Olive Minerva", "wise sleepy old", "glided", "hooted"),
    Character("rabbit", "Robin Thumper", "Clover Daisy", "nimble nervous soft", "hopped", "whispered"),
    Character("bear", "Bruno Barley", "Bella Ursula", "big hungry warm", "lumbered", "rumbled"),
    Character("mouse", "Milo Pip", "Millie Mina", "tiny quick clever", "scurried", "squeaked"),
    Character("hedgehog", "Harold Prickle", "Hazel Holly", "prickly round small", "shuffled", "mumbled"),
    Character("squirrel", "Sammy Chester", "Sadie Nutmeg", "busy nimble bushy", "scampered", "chattered"),
    Character("badger", "Basil Bertram", "Bramble Beatrix", "grumpy sturdy old", "plodded", "grunted"),
    Character("otter", "Otto Ripple", "Odette Coral", "playful sleek merry", "splashed along", "chirped"),
    Character("frog", "Freddy Hopkin", "Fern Lily", "green jumpy noisy", "leaped", "croaked"),
    Character("turtle", "Tobias Timothy", "Tilly Tess", "slow wise steady", "crawled", "murmured"),
    Character("duck", "Dudley Drake", "Dora Puddle", "muddy busy round", "waddled", "quacked"),
    Character("goose", "Gilbert Gus", "Greta Gloria", "proud bossy white", "marched", "honked"),
    Character("kitten", "Tiger Whiskers", "Mittens Pearl", "fluffy playful sleepy", "padded", "mewed"),
    Character("puppy", "Buddy Biscuit", "Poppy Ginger", "bouncy eager clumsy", "bounded", "barked"),
    Character("pony", "Patch Copper", "Penny Star", "spotted proud swift", "cantered", "neighed"),
    Character("donkey", "Duncan Dusty", "Dolly Juniper", "slow loyal gray", "trudged", "brayed"),
    Character("goat", "Gabriel Billy", "Nanny Gwen", "bold hungry cheeky", "climbed", "bleated"),
    Character("lamb", "Woolly Lewis", "Lottie Snowdrop", "woolly small white", "skipped", "bleated"),
    Character("piglet", "Percy Truffle", "Petunia Rosie", "pink muddy round", "trotted", "squealed"),
    Character("cow", "Angus Clyde", "Buttercup Clara", "calm sleepy spotted", "ambled", "mooed"),
    Character("rooster", "Rufus Reggie", "", "proud loud early", "strutted", "crowed"),
    Character("hen", "", "Henrietta Pepper", "fussy plump busy", "pattered", "clucked"),
    Character("crow", "Corbin Jasper", "Cora Raven", "clever black sharp", "flapped", "cawed"),
    Character("sparrow", "Jack Sparky", "Wren Dottie", "tiny brown chatty", "fluttered", "chirped"),
    Character("penguin", "Pablo Waddles", "Paloma Pippa", "neat clumsy jolly", "waddled", "honked"),
    Character("seal", "Silas Selwyn", "Selma Sandy", "sleek playful round", "wriggled", "barked"),
    Character("crab", "Clawson Craig", "Shelly Carmen", "snappy red careful", "sidled", "clicked"),
    Character("snail", "Simon Sheldon", "Sylvia Pearlina", "slow tidy thoughtful", "inched along", "sighed"),
    Character("beetle", "Benny Bartholomew", "Betty Opal", "shiny tiny strong", "scuttled", "hummed"),
    Character("bee", "Buzz Barney", "Beatrice Honey", "busy golden fuzzy", "buzzed along", "buzzed"),
    Character("ant", "Anton Andy", "Annie Antonia", "tiny strong tireless", "marched", "piped"),
    Character("spider", "Spencer Silky", "Charlotte Webby", "patient clever quiet", "crept", "whispered"),
    Character("butterfly", "Monty Florian", "Flora Belle", "bright graceful dreamy", "fluttered", "sang"),
    Character("moth", "Morris Dusk", "Luna Velvet", "dusty dreamy pale", "fluttered", "murmured"),
    Character("lizard", "Leo Zigzag", "Lizzy Jade", "quick green sunny", "darted", "hissed"),
    Character("elephant", "Elmer Rajah", "Ella Tula", "huge wise wrinkled", "stomped", "trumpeted"),
    Character("giraffe", "Gerald Stretch", "Gigi Geraldine", "tall graceful spotted", "strolled", "hummed"),
    Character("lion", "Leonard Rory", "Leona Sasha", "mighty golden lazy", "prowled", "roared"),
    Character("monkey", "Momo Jojo", "Mango Coco", "cheeky silly quick", "swung along", "giggled"),
    Character("panda", "Bao Ping", "Mei Lin", "sleepy round peaceful", "rolled along", "yawned"),
    Character("kangaroo", "Roo Joey", "Kylie Matilda", "bouncy strong sporty", "bounced", "laughed"),
    Character("camel", "Karim Omar", "Amina Sahara", "dusty calm proud", "swayed along", "grumbled"),
    Character("wolf", "Wilbur Ash", "Willow Winter", "gray fierce loyal", "loped", "howled"),
    Character("deer", "Dash Rowan", "Dawn Heather", "graceful swift timid", "bounded", "breathed"),
    Character("raccoon", "Rocky Bandit", "Roxy Ringlet", "sneaky clever masked", "sneaked", "chuckled"),
    Character("beaver", "Bucky Timber", "Bonnie Maple", "handy busy sturdy", "paddled", "declared"),
    Character("mole", "Morton Digby", "Molly Velvetina", "shortsighted dusty humble", "shuffled", "muttered"),
    Character("parrot", "Polo Captain", "Polly Paradise", "colorful chatty loud", "flapped", "squawked"),
    Character("cat", "Tom Smokey", "Tabby Cleo", "sleek sly sleepy", "slinked", "purred"),
    Character("dog", "Rex Barkley", "Lassie Trixie", "loyal shaggy cheerful", "raced", "barked"),
    Character("horse", "Thunder Chestnut", "Bess Stella", "swift strong noble", "galloped", "neighed"),
    Character("dinosaur", "Dino Rocco", "Dina Terra", "enormous spiky clumsy", "thundered", "roared"),
    Character("unicorn", "Silver Aurelio", "Aurora Celeste", "white magical graceful", "pranced", "sang"),
    Character("girl", "", "Anna Maya Sofia Zoe", "brave barefoot bright", "ran", "said"),
    Character("boy", "Ben Theo Sam Amir", "", "bright barefoot small", "ran", "said"),
    Character("baker", "Hugo Crispin", "Marta Rosalind", "floury jolly busy", "hurried", "said"),
    Character("gardener", "Glen Moss", "Iris Violet", "patient muddy gentle", "walked", "said"),
    Character("sailor", "Finn Marlow", "Marina Nell", "bold sunburned restless", "strode", "called"),
    Character("painter", "Pierre Vincent", "Frida Claudia", "dreamy messy thoughtful", "wandered", "said"),
    Character("shepherd", "Colin David", "Bridget Ada", "calm watchful young", "walked", "called"),
    Character("knight", "Roland Percival", "Joan Isolde", "noble clumsy loyal", "rode", "declared"),
    Character("farmer", "Walter Joe", "Edna Ruth", "sturdy muddy cheerful", "tramped", "said"),
    Character("pirate", "Redbeard Jim", "Grace Scarlett", "bold loud seasick", "marched", "shouted"),
    Character("astronaut", "Neil Yuri", "Sally Valentina", "bold curious weightless", "floated", "reported"),
    Character("king", "Edmund Rupert", "", "rich lazy round", "strode", "announced"),
    Character("queen", "", "Matilde Augusta", "proud clever splendid", "swept", "announced"),
    Character("prince", "Florin Sebastian", "", "polite dreamy bored", "rode", "said"),
    Character("witch", "", "Wilma Hilda Griselda", "warty crooked clever", "flew", "cackled"),
    Character("fairy", "Pip Glimmer", "Tansy Bluebell", "tiny sparkling quick", "fluttered", "chimed"),
    Character("princess", "", "Amelia Eleanor Leila", "clever restless bold", "hurried", "said"),
    Character("wizard", "Merle Alaric", "Morgana Elspeth", "old forgetful wise", "wandered", "muttered"),
    Character("clockmaker", "Klaus Emil", "Greta Ottilie", "careful neat quiet", "hurried", "said"),
    Character("dragon", "Smolder Drago", "Ember Scarlet", "enormous green sleepy", "swooped", "rumbled"),
    Character("giant", "Grumble Magnus", "Brunhild Magda", "enormous gentle clumsy", "stomped", "boomed"),
    Character("robot", "Bolt Beep", "Dot Pixel", "shiny squeaky polite", "rolled", "beeped"),
    Character("snowman", "Frosty Jack", "", "chilly round jolly", "slid", "said"),
    Character("ghost", "Casper Hugh", "Misty Wanda", "pale shy floaty", "floated", "moaned"),
    Character("elf", "Elwin Thistle", "Elva Ivy", "tiny merry quick", "skipped", "sang"),
    Character("mermaid", "", "Marisol Nerissa Delphine", "graceful curious silver", "glided", "sang"),
    Character("gnome", "Norbert Nico", "Nelly Nora", "grumpy tiny tidy", "stumped along", "grumbled"),
    Character("troll", "Trevor Boulder", "Trudy Pebbles", "mossy grumpy slow", "stomped", "growled"),
)
# fmt: on
