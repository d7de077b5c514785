"""The plots of data/stories.py: what may happen in a story. Text, not program.

Notation: `[a|b]` is a choice, `{name}` a slot ({Name} with a capital), ` / ` ends a line. The hero,
an animal, a thing or food and places are drawn anew for each story, and come back in it: it can
only be told by looking back. What helps a small model to learn that (docs/log.md): each comes
back four times or more, and few are of a kind; a story has one thing or one food, not both; one
hero has a name, of three letters, and a kind with a pronoun of its own; a name follows a space (at
the start of a line or a quote it would be another token).
"""

KINDS = {  # what a slot is filled with; utils/judge.py asks of which kind a word is
    "he": "Tom Ben Sam Max Leo Ned Gus Tim",
    "she": "Ivy Ada Zoe Amy Eve Mia Kim Ann",
    "he-kind": "fox pig bear badger puppy",
    "she-kind": "mouse rabbit hedgehog squirrel kitten",
    "mood": "little small young cheerful kind merry busy clever shy brave",
    "kin": "grandmother grandfather aunt uncle mother father",
    "animal": "hen duck goat cow owl frog cat dog crow mole",
    "beast": "wolf troll dragon giant lion",
    "thing": "kite ball hat bell drum ring spoon cup key box",
    "look": "red blue green yellow shiny wooden",
    "food": "honey cake, plum pie, pear, cheese, pancake, carrot, bun, cookie",
    "place": "under the bridge, behind the mill, by the pond, in the barn, on the hill, "
    "in the garden, near the well, under the oak",
}

SHARED = {  # slots that every plot may use
    "open": "[{once}, there was a {mood} {kind} named {name}."
    "|{once}, there lived a {mood} {kind} named {name}."
    "|{once}, a {mood} {kind} named {name} lived {home}."
    "|{once}, there was a {mood} {kind} named {name}, who lived {home}.]",
    "once": "[Once upon a time|Once upon a time|Once upon a time|Long ago|In a small village]",
    "home": "[in a little house|on a farm|in a house with a red door|at the end of a long road"
    "|under a green hill|in an old mill|on top of a hill|next to the school]",
    "when": "[One day|One morning|One fine day|One Sunday|One windy day|One evening]",
    "soon": "[Soon|Then|Just then|Before long]",
    "sad": '["Oh dear," said {name}.|"Oh no!" cried {name}.|Poor {name} wanted to cry.'
    '|Then {name} sat down and sighed.|"What can I do now?" said {name}.]',
    "happy": "[That night, {name} fell asleep with a smile.|And {name} was very happy."
    "|And {name} smiled from ear to ear.|And {name} told the story every winter."
    "|{He} was so happy that {he} danced all the way home."
    '|"What a day!" said {name}.|From then on, {name} and the {animal} were good friends.]',
    "hungry": "[I am so hungry|I have had no supper|I have not eaten all day]",
}

LOST = """{open} {He} had a {look} {thing} and [took the {thing} everywhere|was very proud of
    the {thing}]. {when}, the {thing} was gone! / First, {name} looked {place}, but there was no
    {thing}. {sad} / Then {he} met a {animal} {place2}. "Have you seen my {thing}?" asked
    {name}. "[I found a {thing} this morning|The wind brought a {thing} here]," said the
    {animal}, and gave {him} the {thing}. {happy}"""

FOUND = """{open} {when}, {name} found a {look} {thing} {place}. "[Whose {thing} is this|Who has
    lost a {thing}]?" said {name}. / {soon} {he} met a {animal}. "Is this your {thing}?" asked
    {name}. "[No|I am sorry]," said the {animal}, "[but it is a fine {thing}|I have no
    {thing}]." / Then {name} met {his} {kin} {place2}. "There is my {thing}!" said {his} {kin}.
    So {name} gave back the {thing}. {happy}"""

GIFT = """{open} {when}, {his} {kin} gave {him} a {food}. "[This {food} is all for me|I will eat
    my {food} alone]," said {name}. / But {place} sat a {animal}. "{hungry}," said the {animal},
    and looked at the {food}. So {name} shared the {food} with the {animal}. / [That winter|The
    next day|In spring], {name} was lost {place2}. {sad} But the {animal} showed {him} the way
    home. "You shared your {food} with me," said the {animal}. {happy}"""

QUARREL = """{open} {when}, {name} and a {animal} found a {look} {thing} {place}. / "It is my
    {thing}!" [cried|said|shouted] {name}. "No, it is my {thing}!" [cried|said|shouted] the
    {animal}. They pulled and pulled, and the {thing} [broke|fell in the mud]. / "I am sorry,"
    said {name}. "I am sorry, too," said the {animal}. / So {name} had the {thing} in the
    morning, and the {animal} had the {thing} in the evening. {happy}"""

PROMISE = """{open} {when}, a {animal} had to go to the [market|town]. "Will you keep my {thing}
    for me?" asked the {animal}. "I will keep your {thing}," said {name}. / {soon} a {beast}
    came by. "Give me that {thing}!" said the {beast}. "No," said {name}. "[I made a promise|A
    promise is a promise]." And {name} hid the {thing} {place}. / In the evening, the {animal}
    came home. "Here is your {thing}," said {name}. "You kept your promise," said the {animal}.
    {happy}"""

FEAR = """{open} {He} was afraid of the {animal} {place}. / One night, {name} heard somebody
    cry. It was the {animal}! "I have lost my {thing}," said the {animal}, "and I cannot sleep
    without my {thing}." / {His} knees shook, but {name} went out and looked {place2}. There lay
    the {thing}. / So {name} brought the {thing} home. "[You are brave|How brave you are]," said
    the {animal}. "I was afraid of you," said {name}. They laughed and played with the {thing}.
    {happy}"""

TRICK = """{open} {when}, {name} was taking a {food} to {his} {kin}. But {place} sat a
    [hungry|proud|sleepy] {beast}. "Give me the {food}!" said the {beast}. / {He} was afraid,
    but {name} [thought fast|had an idea|did not run]. / ["There is a better {food} {place2},"
    said {name}. The {beast} ran to look, but found no {food}.|"A fine {beast} must count to ten
    before it eats a {food}," said {name}. "One, two, three, four," said the {beast}. "What
    comes after four?" But {name} was far away.|"Close your eyes, and I will give you the
    {food}," said {name}. The {beast} closed its eyes and waited, and {name} ran away.] / So
    {name} and the {food} were safe. [A clever head is better than big teeth.|Little ones can be
    clever, too.|And {name} was very happy.]"""

WISH = """{open} {He} wanted a {thing} more than anything, but {he} had no money for a {thing}.
    {sad} / {when}, {name} met a {animal} {place}. "Help me carry my bag home," said the
    {animal}. So {name} carried the bag [all day|all the way]. / "You are [kind|strong]," said
    the {animal}. "What would you like?" "A {thing}," said {name}. So the {animal} gave {him} a
    {look} {thing}. / That night, {name} slept with the {thing} in {his} arms."""

RACE = """{open} {when}, a {animal} laughed at {him}. "You are so slow, {name}!" said the
    {animal}. "Let us run to the mill and back," said {name}. / The {animal} ran like the wind,
    but saw a {food} {place}. The {food} was so good that the {animal} ate the {food} and fell
    asleep. / On and on went {name}, [step by step|and did not stop]. In the evening came the
    {animal}. "I only stopped for a {food}," said the {animal}. "Who is slow now?" asked {name}.
    {happy}"""

NIGHT = """{open} One night, {name} heard a noise {place}. "Who is there?" whispered {name}. /
    {He} took a lamp and went out in the dark. There sat a {animal}! "{hungry}," said the
    {animal}. "[Have you|Is there] a {food} for me?" / "Come in," said {name}. "I have a
    {food}." So they ate the {food} by the fire. / In the morning, the {animal} was gone, but on
    the table lay a new {food}. {happy}"""

PARTY = """{open} {when}, it was {his} birthday. First came {his} {kin} with a {look} {thing}.
    "This {thing} is for you, {name}," said {his} {kin}. / Then came a {animal}, and hid
    {place}. "I have no {thing} for you," said the {animal}. / "I have a {thing}," said {name},
    "but I have no song." So the {animal} sang, and they all danced around the {thing}.
    {happy}"""

HELP = """{open} {when}, {his} {look} {thing} broke. {sad} / {soon} a {animal} came by. "[What
    is the matter|What is wrong|Can I help you], {name}?" asked the {animal}. "My {thing} is
    broken," said {name}. "I can mend a {thing}," said the {animal}. / They worked [all day|all
    morning] {place}, and [soon|at last] the {thing} was as good as new. / "It is the best
    {thing} of all," said {name}. "A trouble is small when two carry it," said the {animal}.
    {happy}"""

SOUP = """{open} {when}, {name} had nothing in the house but a {look} {thing}. "I will make
    {thing} soup," said {name}. / "What is {thing} soup?" asked the {animal}. "It is soup with a
    {thing} in it," said {name}. "It needs only a bit of salt." So the {animal} brought the
    salt. / Soon the soup was hot, and they ate it {place}. "I like {thing} soup," said the
    {animal}. {happy}"""

HIDE = """{open} {when}, {name} played hide and seek with a {animal}. First, {name} looked
    {place}, but found only a {look} {thing}. / "I see a {thing}, but where is the {animal}?"
    said {name}. / Then something laughed {place2}. There sat the {animal}, with another
    {thing}! "You found me," said the {animal}. "And I found a {thing}, too," said {name}.
    {happy}"""

LETTER = """{open} {when}, there was a letter for {him}, but {name} could not read it. / So {he}
    took it to {his} {kin} {place}. "It says: Come to tea, {name}, and bring a {food}," said
    {his} {kin}. "It is from the {animal}." / So {name} made a {food}, and took the {food} to
    the {animal}. "What a good {food}!" said the {animal}. They ate it {place2}. {happy}"""

SEED = """{open} {when}, {name} put a {food} in the ground {place}. "Now a {food} tree will
    grow," said {name}. But no tree came up. {sad} / "Sing to the {food}," said a {animal}. So
    {name} sang [every day|all day]. / In summer, there was a tree, as tall as a house, and on
    it hung a {food}. "Half of the {food} is for you," said {name} to the {animal}. {happy}"""

PLOTS = [LOST, FOUND, GIFT, QUARREL, PROMISE, FEAR, TRICK, WISH]
PLOTS += [RACE, NIGHT, PARTY, HELP, SOUP, HIDE, LETTER, SEED]
