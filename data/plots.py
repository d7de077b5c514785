"""The plots of data/stories.py: what may happen in a story. Text, not program.

Notation: `[a|b]` is a choice, `{name}` a slot ({Name} with a capital), ` / ` ends a line. The hero,
animals, things, food and places are drawn anew for each story and come back in it under their slot:
so a story can only be told by looking back. What helps a small model to learn that: few words of a
kind, names of three letters, which follow a space wherever they stand (at the start of a line or a
quote they would be other tokens), one named hero, whose kind has a pronoun of its own.
"""

KINDS = {  # what a slot is filled with; utils/judge.py asks of which kind a word is
    "he": "Tom Ben Sam Max Leo Ned Gus Tim",
    "she": "Ivy Ada Zoe Amy Eve Mia Kim Ann",
    "he-kind": "fox pig bear badger puppy",
    "she-kind": "mouse rabbit hedgehog squirrel kitten",
    "mood": "little small young cheerful kind merry busy clever shy brave",
    "kin": "grandmother grandfather aunt uncle mother father",
    "animal": "hen duck goat cow owl frog cat dog crow mole beaver turtle",
    "beast": "wolf troll dragon giant lion",
    "thing": "kite ball hat bell drum scarf boot ring spoon cup key box ribbon basket whistle button",
    "look": "red blue green yellow shiny wooden",
    "food": "honey cake, plum pie, pear, cheese, loaf of bread, pancake, carrot, pumpkin, bun, "
    "cookie",
    "place": "under the bridge, behind the mill, by the pond, in the barn, on the hill, "
    "in the garden, near the well, under the oak, by the river, at the market",
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

LOST = """{open} {He} had a {look} {thing} and [took it everywhere|was very proud of it].
    {when}, the {thing} was gone! / First, {name} looked {place}, but found only a {food}. {sad}
    / Then {he} met a {animal} {place2}. "Have you seen my {thing}?" asked {name}. "[The wind
    brought it here|I found it this morning]," said the {animal}, and gave {him} the {thing}.
    {happy}"""

TRADE = """{open} {when}, {name} found a {look} {thing} {place}. / {soon} {he} met a {animal}
    with a {food}. "[I need|I would like|I have always wanted] a {thing}," said the {animal}.
    "[Can we trade|Will you take my {food} for it]?" / So {name} gave away the {thing} and took
    the {food}. "A {food} is better than a {thing}," said {name}, and [ate it {place2}|took it
    home]. {happy}"""

GIFT = """{open} {when}, {his} {kin} gave {him} a {food}. "[It is all for me|How lucky I am],"
    said {name}. / But {place} sat a {animal}. "{hungry}," said the {animal}. So {name} shared
    the {food} with the {animal}, and [it was good|nothing was left]. / [That winter|The next
    day|In spring], {name} lost {his} {thing}. {sad} But the {animal} found it {place2}, and
    brought it home. {happy}"""

QUARREL = """{open} {when}, {name} and a {animal} found a {look} {thing} {place}. / "It is
    mine!" [cried|said|shouted] {name}. "No, it is mine!" [cried|said|shouted] the {animal}.
    They pulled and pulled, and the {thing} [broke|fell in the mud]. / "I am sorry," said
    {name}. "I am sorry, too," said the {animal}. / So {name} had the {thing} in the morning,
    and the {animal} had it in the evening. {happy}"""

PROMISE = """{open} {when}, a {animal} had to go to the [market|town]. "Will you keep my {thing}
    for me?" asked the {animal}. "I promise," said {name}. / {soon} a {beast} came by. "Give me
    the {thing}," said the {beast}, "and I will give you a {food}." / "No," said {name}. "[I
    made a promise|A promise is a promise|It is not my {thing}]." / In the evening, the {animal}
    came home. "You kept your promise," said the {animal}. {happy}"""

FEAR = """{open} {He} was afraid of the {animal} {place}. / One night, {name} heard somebody
    cry. It was the {animal}! "I have lost my {thing}," said the {animal}, "and I am afraid of
    the dark." / {His} knees shook, but {name} took a lamp and looked {place2}. There lay the
    {thing}. / "[You are brave|How brave you are]," said the {animal}. "I was afraid of you,"
    said {name}. They laughed and ate a {food} together. {happy}"""

TRICK = """{open} {when}, {name} was taking a {food} to {his} {kin}. But {place} sat a
    [hungry|proud|sleepy] {beast}. "Give me the {food}!" said the {beast}. / {He} was afraid,
    but {name} [thought fast|had an idea|did not run]. / ["There is a better {food} {place2},"
    said {name}. The {beast} ran to look, but there was only a {animal} with a {look}
    {thing}.|"A fine {beast} must count to ten [first|before supper]," said {name}. "One, two,
    three, four," said the {beast}. "What comes after four?" But {name} was far away.|"Close
    your eyes, and I will tell you a story," said {name}. The story was about a {animal} with a
    {look} {thing}, and soon the {beast} was asleep.] / So {name} and the {food} were safe. [A
    clever head is better than big teeth.|Little ones can be clever, too.|And {name} was very
    happy.]"""

WISH = """{open} {He} wanted a {look} {thing} more than anything[| in the world], but {he} had
    no money. {sad} / {when}, {name} met a {animal} {place}. "Help me carry my {food} home,"
    said the {animal}. So {name} carried the {food} [all day|all the way]. / "You are
    [kind|strong]," said the {animal}. "What would you like?" "A {thing}," said {name}. And the
    {animal} gave {him} a {look} {thing}. {happy}"""

RACE = """{open} {when}, a {animal} laughed at {him}. "You are so slow, {name}!" said the
    {animal}. "Let us run to the mill and back," said {name}. / The {animal} ran like the wind,
    but saw a {food} {place}. It was so good that the {animal} [ate and ate|ate it and fell
    asleep]. / On and on went {name}, [step by step|and did not stop]. In the evening came the
    {animal}. "Who is slow now?" asked {name}. {happy}"""

NIGHT = """{open} One night, {name} heard a noise {place}. "Who is there?" whispered {name}. /
    {He} took a lamp and went out in the dark. There sat a {animal}! "[{hungry}|I am cold|I
    cannot sleep]," said the {animal}. / "Come in," said {name}. "I have a {food}." So they ate
    the {food} by the fire. / In the morning, the {animal} was gone, but on the table lay a
    {look} {thing}. {happy}"""

PARTY = """{open} {when}, it was {his} birthday. First came {his} {kin} with a {look} {thing}.
    "This is for you, {name}," said {his} {kin}. / Then came the {animal} with nothing, and hid
    {place}. "I have no {thing} for you," said the {animal}. / "But you can sing," said {name}.
    So the {animal} sang, and they all danced {place2}. "Your song is the best gift," said
    {name}. {happy}"""

HELP = """{open} {when}, {his} {look} {thing} broke. {sad} / {soon} a {animal} came by. "[What
    is the matter|What is wrong|Can I help you], {name}?" asked the {animal}. "My {thing} is
    broken," said {name}. / They worked [all day|all morning], and [soon|at last] the {thing}
    was as good as new. / Then {name} and the {animal} sat {place} and ate a {food}. "A trouble
    is small when two carry it," said the {animal}. {happy}"""

SOUP = """{open} {when}, {name} had nothing in the house but a {look} {thing}. "I will make
    {thing} soup," said {name}. / "What does it need?" asked the {animal}. "Only a {food}," said
    {name}. So the {animal} brought a {food}. / Soon the soup was hot, and they ate it {place}.
    "[What a good {thing}|I like {thing} soup]," said the {animal}. {happy}"""

HIDE = """{open} {when}, {name} played hide and seek with a {animal}. First, {name} looked
    {place}, but found only a {look} {thing}. / "Where is that {animal}?" said {name}. {sad} /
    Then something laughed {place2}. "There you are!" cried {name}. "[I was here all the time|I
    was very quiet]," said the {animal}. / They had a {food}, and played again until supper.
    {happy}"""

LETTER = """{open} {when}, there was a letter for {him}, but {name} could not read it. / So {he}
    took it to {his} {kin} {place}. "It says: Come to tea, {name}, and bring a {thing}," said
    {his} {kin}. "It is from the {animal}." / So {name} went to the {animal} with a {look}
    {thing}, and they ate a {food} {place2}. {happy}"""

SEED = """{open} {when}, {name} put a seed in the ground {place}. But nothing came up. {sad} /
    "Sing to it," said a {animal}. So {name} sang [every day|all day]. / In summer, there was a
    tree, as tall as a house, and on it hung a {food}. / "Half is for you," said {name}, and
    gave it to the {animal}. "And what is for you?" asked the {animal}. "I have the tree," said
    {name}. {happy}"""

PLOTS = [LOST, TRADE, GIFT, QUARREL, PROMISE, FEAR, TRICK, WISH]
PLOTS += [RACE, NIGHT, PARTY, HELP, SOUP, HIDE, LETTER, SEED]
