"""The plots of data/stories.py: what may happen in a story. Text, not program.

A plot is a template, the names of its row's fields, and its rows, one a paragraph: a row says what
this story is about. Notation: `[a|b]` is a choice, `{name}` a slot, ` / ` ends a line of a plot or
a field of a row.
"""

# Each plot: its template, the names of its row's fields, its rows (one a paragraph).
TROUBLE = (
    """{open} {when}, {name} wanted {want}. {but} {tried} {sigh} / [Just then, a|Then a|Soon
    a|By good luck, a] {helper} came by. "[What is the matter|What is wrong|Why are you so
    sad|Can I help you], [{name}|my friend|little {kind}]?" asked the {helper}. / "{plea}," said
    {name}. "{offer}," said the {helper}. / {fix} / [{night}|{night}|From that day on, {name}
    and the {helper} were good friends.|{Name} learned that it is good to ask for help.|"Thank
    you," said {name}. "You are welcome," said the {helper}.|"A trouble is small when two carry
    it," said the {helper}.]""",
    "want but tried helper plea offer fix",
    """to pick the sweet pears across the river / But the river was [deep and fast|too deep]. /
    {He} tried to jump over it, but {he} fell in with a [big|cold] splash. / beaver / I cannot
    cross the river / I have a long log. [It can be our bridge|We can make a bridge] / They
    pushed the log across the river. {Name} walked over the bridge, [step by step|very slowly],
    and came back with two pears.

    to fly {his} [red|blue|yellow] kite / But the wind took the kite and left it at the top of
    [a tall|an old] tree. / {He} jumped and jumped, but the kite was too high. / painter / My
    kite is stuck in the tree / I have a ladder. [It is as tall as the tree|Up you go] / The
    painter held the ladder, and {name} climbed up to the kite. [Soon|Before long] the kite was
    dancing in the wind again.

    to take [six|ten] pumpkins to the market / But a wheel fell off the cart. / {He} tried to
    pull the cart, but it [only|just] went round and round. / smith / The wheel fell off my cart
    / I have a hammer[| and a nail] / Tap, tap, tap went the hammer, and the wheel was on the
    cart again. {Name} gave the smith the [biggest|best] pumpkin and took the others to the
    market.

    to walk home through the woods / But night came, and the path was [very|too] dark. / {He}
    bumped into a tree and said sorry to [it|the tree]. / firefly / It is too dark to find the
    path / I am small, but I have ten sisters / All the fireflies came and [danced like little
    stars|lit the path]. {Name} walked home in the light, and {he} did not bump into [one|a]
    tree.

    to have a picnic on the hill / But it began to rain[| hard]. / {He} hid under a [flower, but
    the flower|hat, but the hat] was too small. / farmer / It is too wet for a picnic / My barn
    is dry, and my cow likes [friends|a picnic] / So they had the picnic in the barn, while the
    rain [sang|danced] on the roof. {Name} shared the bread, and the cow ate the [plate|farmer's
    hat].

    to bake a cake for {his} [mother|grandmother|aunt] / But there were no eggs in the
    [house|kitchen]. / {He} made a cake without eggs, and it was as flat as a [plate|hat]. / hen
    / I have no eggs for my cake / I have [three|four] eggs, and I like cake / {Name} took the
    eggs and baked [again|a new cake]. This time the cake was [tall and round|as tall as a hat],
    and the hen had the first piece.

    to grow a [tall|big|yellow] sunflower / But it did not rain, and the seed slept [on|and
    slept]. / {He} sang to the seed, but nothing [came|came up]. / gardener / My seed will not
    grow / A seed likes a song, but it likes water[ more|, too] / So {name} gave the seed [a
    little|some cold] water every day, and a song as well. By summer the sunflower was as tall
    as [the house|the gardener and very proud].

    to play {his} fiddle at the [party|market] / But a string of the fiddle broke. / {He} tried
    to play without it, and all the [cats|ducks] ran away. / spider / My fiddle has lost a
    string / I can make you a new string / The spider made [a string|one] as good as new, and
    the fiddle sang. {Name} played all night, and the spider danced on the [roof|table].

    to sail to the [little|green] island / But there was a hole in the boat. / {He} put {his}
    hat in the hole, and [the hat|it] floated away. / sailor / There is a hole in my boat / I
    have a [board and nails|board and a hammer] / The sailor put a board over the hole, and the
    boat was dry[| again]. {Name} sailed to the island and found [a new hat there|{his} hat
    under a tree].

    to touch the moon / But the moon was [much too|so] high. / {He} stood on a chair on a table,
    and all of them fell down [with a bump|together]. / miller / I cannot touch the moon / Come
    to the pond. [It|The moon] comes there to swim / In the [still|dark] water of the pond lay
    the moon. {Name} touched it with one foot, and the moon [began to dance|danced and laughed].

    to read a letter / But {he} could not read[| it]. / {He} held the letter to {his} ear, but
    it did not speak. / teacher / I cannot read my letter / I can read. [Let us|We can] read it
    together / The teacher read the letter slowly. It said, "Come to tea today, and bring [a
    friend|a teacher]." So {name} and the teacher [ran|went] to tea together.""",
)

LOST = (
    """{open} {Name} had a {thing} and [took it everywhere|loved it very much|was proud of it].
    {when}, the {thing} was [gone|lost|not there]! / {Name} looked [under the bed|behind the
    door|in the kitchen|in every box] and found [an old sock|a cold pancake|a sleepy
    spider|three nuts], but no {thing}. {sigh} / "Have you seen my {thing}?" {name} asked {pal}
    the {palkind}. / "No, but [two can look better than one|I will help you look|I am good at
    finding things]," said {pal}. They looked [in the garden|by the gate|behind the barn] and
    [under the cart|near the pond|in the hen house]. / [At last|Then] {pal} [began to
    laugh.|stopped.|cried, "Look!"] {found} / {joke} {pals}""",
    "thing found joke",
    """blue hat / The blue hat was on {name}'s own head! / "[I looked everywhere but up|I never
    look up there]," said {name}.

    red ball / A hen was sitting on the red ball[, very proud|]. / "[Shh|Be kind]," {pal}
    whispered. "It is her egg now." So they waited until supper and gave her some bread for it.

    warm scarf / The snowman was wearing the warm scarf! / "He looks [so happy|cold]," said
    {name}. "He can keep it until [spring|the sun comes]."

    silver bell / The cow was wearing the silver bell and walking like a queen. / "[She looks|It
    is] very fine," said {name}, "but I will make her a hat."

    green boot / [Six|Ten] little mice were asleep in the green boot. / "Shh," said {name}. "I
    can [go|walk] home in one boot."

    story book / {Name}'s grandmother was asleep in her chair with the story book. / "I wanted
    to know the end," she said, "so I read it [twice|all]."

    yellow cup / A bird was taking a bath in the yellow cup. / "Close the door," said the bird,
    and {name} waited [by the door|until it was dry].

    wooden spoon / The dog had put the wooden spoon in the ground with [six|ten] bones. / "He
    likes bone soup," said {name}, and washed the spoon [twice|well].

    little drum / Three frogs were dancing on the little drum. / "[Do not stop|One more dance],"
    said {name}, and {he} danced [with them|until supper].""",
)

PROMISE = (
    """{open} {when}, {name}'s friend {pal} the {palkind} had to go to [the market|the town|see
    a sick aunt]. "Will you {job} [while I am away|for me|until I come back]?" asked {pal}. "I
    promise," said {name}. / Soon [some children|three geese] came by. "Come [with us|and play],
    {name}! [There is a party at the mill|We are going to swim|There is music at the mill|We are
    going to sail a boat]!" / {Name} wanted to go [so much that {his} feet danced|very much].
    But {he} thought of {pal}. "[Not today|I cannot go|Thank you, but no]," said {name}. "[I
    made a promise|A promise is a promise|{Pal} needs me]." / {did} / {reward} "You kept your
    promise," said {pal}. [A friend like {name} is hard to find.|"It was hard," said {name},
    "but [I did it|you are my friend]."|{Name} was [very proud|so proud that {he} sang].|"Next
    time, we will [both go|go together]."]""",
    "job did reward",
    """feed the hens / So {he} fed the hens and told them a [long|funny|sad] story. The hens
    [liked it|asked for one more]. / When {pal} came home, there were [six|ten] eggs, so they
    [baked a cake|had pancakes].

    water the beans / So {he} watered the beans, [one by one|row by row], and gave each one a
    name. / When {pal} came home, the beans were as high as the [door|roof].

    keep the lamp lit / So {he} sat by the lamp and kept it lit [all night|until late], with
    both eyes open. / {Pal} was lost in the [dark|rain], but {phe} saw the lamp and found the
    way home.

    stir the soup / So {he} stirred the soup, [round and round|slowly], until {his} arm was
    tired. / When {pal} came home, [cold and|wet and] hungry, the soup was hot, and they had two
    bowls each.

    mind the baby goat / So {he} sat with the baby goat, and it ate [{his} hat|one sock]. / When
    {pal} came home, the baby goat was asleep in {name}'s [arms|bed].

    mind the pie / So {he} sat by the pie and kept it safe [from the cat|from {his} own nose].
    It was [not easy|hard]. / When {pal} came home, {phe} cut the pie and gave {name} the
    biggest piece.""",
)

QUARREL = (
    """{open} {His} best friend was {pal} the {palkind}. {when}, they [found|saw] {thing}. / "It
    is mine!" [cried|said|shouted] {name}. "No, it is mine!" [cried|said|shouted] {pal}. {loss}
    / They [did not speak|looked at the ground|were quiet for a long time|sat back to back].
    {Name} was [sad|sorry] without {pal}, and {pal} was [sad|lonely] without {name}. / "I am
    sorry," said {name}[| at last]. "I am sorry, too," said {pal}[|, and held out a flower]. /
    {peace} [{pals}|{pals}|"It is better with two," said {pal}.|A friend is better than any
    {toy}.]""",
    "thing toy loss peace",
    """one last honey cake on the plate / cake / They pulled and pulled until the cake fell in
    the mud, and a duck ate it. / Then they baked a new cake together and cut it in two. The
    duck [waited by the door|came back with its sisters].

    a red sled on the hill / sled / While they shouted, the sled went down the hill without
    them. / They pulled the sled up again and sat on it together. With two, it went [twice as
    fast|like the wind].

    a blue boat on the pond / boat / While they shouted, the boat floated away, and a duck
    climbed in. / They ran after the boat and brought it back. {Name} sang, {pal} [sang|danced],
    and the duck was the captain.

    a swing under an old tree / swing / While they shouted, a goat sat down on the swing and
    closed its eyes. / Then they took turns. {Name} pushed {pal}, {pal} pushed {name}, and they
    both pushed the goat.

    a big [green|yellow|red] umbrella / umbrella / They pulled until the umbrella broke, and
    then it began to rain[| hard]. / They mended the umbrella with a [red|blue|green] sock and
    walked home under it, very close together.

    a drum behind the mill / drum / They both beat the drum so hard that [all the|the] cats ran
    away. / Then {name} played the drum while {pal} sang, and all the cats came back to listen.""",
)

TRICK = (
    """{open} {when}, {name} was taking a {food} to {his} [grandmother|aunt|uncle]. [{where}
    sat|{where} {he} met] a {how} {beast}. / "Give me [that|your] {food}!" said the {beast}.
    {Name} was [afraid|only little], but {he} [thought fast|had a clever idea|did not run]. /
    "{trick}," said {name}. "[Is that so|Is that true]?" said the {beast}. / {result} / [{Name}
    and the {food} were safe.|{Name} ran on with the {food}.|{Name} was home in time for
    supper.] [And {name} was very happy.|A clever head is better than big teeth.|Little ones can
    be clever, too.]""",
    "how beast where food trick result",
    """hungry / wolf / By the pond / honey cake / This is too small
    for you. There is a big round cheese in the pond / The wolf saw the [yellow|round] moon in
    the water, jumped in with a splash, and caught only a cold.

    big / troll / On the bridge / pumpkin pie / Of course, but a
    troll must count to ten [first|before supper] / "One, two, three, four," said the troll.
    "What comes after four?" But {name} was over the bridge, and the troll is [still
    counting|counting there still].

    proud / cat / By the gate / round cheese / A fine cat must wash
    before supper / The cat washed its [ears|nose], then its [feet|back], and then its long
    tail. When it was clean, there was nobody [there|left at the gate].

    sleepy / dragon / On the hill / basket of plums / You look tired.
    Close your eyes, and I will tell you a story / The story was about a [stone|cow], and it was
    very slow. Before the end, the dragon was asleep with its tail [on|over] its nose.

    young / giant / On the road / plum pie / It is too hot. Close your
    eyes and blow / The giant closed its eyes and blew and blew. When it [stopped|looked],
    {name} was far away, and [its|the giant's] hat was in a tree.""",
)

FEAR = (
    """{open} {Name} was afraid of {fear}. {hide} / {need} {Name} wanted [to hide|to run
    away|somebody else to go]. {His} [knees shook|heart went bump, bump, bump]. / "[I am
    afraid|I do not feel brave]," {he} whispered, "but [somebody must help|I will try|I can go
    slowly]." / {deed} / {end} / [After that, {name} was not afraid of {fear}.|"You were brave,"
    said {his} [mother|father]. "I was afraid, too," said {name}.|To be brave is to be afraid
    and go on.|{night}]""",
    "fear hide need deed end",
    """the dark / {He} slept with [a blanket|two blankets] over {his} head. / One night, a lamb
    [cried|was lost] in the dark garden. / So {name} took a lamp and went out, step by step.
    There was the lamb, behind the [gate|cart|old tree]. / The dark was only the garden with its
    eyes closed.

    thunder / {He} always hid [under the table|in a big box]. / One night, in the thunder, a wet
    [duck|kitten|lamb] cried at the door. / So {name} opened the door and sang it a [long|loud]
    song. / They sang louder and louder until the thunder [gave up|went home].

    deep water / {He} never went [near|into] the river. / {when}, a kitten was stuck on a
    [stone|log] in the river. / So {name} put one foot in the water, and then the other. Soon
    the kitten was [safe|warm] in {his} arms. / And the deep water came only to {his} knees!

    high places / {He} did not even like [a small ladder|the top of a hill]. / {when}, a baby
    bird fell from its nest in [a tall|an old] tree. / So {name} took the bird in {his} hat and
    climbed the ladder, [step by step|very slowly]. / From the nest {he} could see [the sea|all
    the hills], and it was [very|so] fine.

    the big dog / {He} took the long road to go around [it|its house]. / {when}, the big dog lay
    by the gate and cried. / So {name} came close and saw a nail in its foot. Very slowly, {he}
    pulled it out. / The big dog licked {his} nose [twice|and both ears].

    noises in the night / {He} put {his} head under the [bed|blanket] at every noise. / One
    night, something on the roof went bump, and the [baby|kitten|little lamb] cried. / So {name}
    took a lamp and climbed up the ladder. / It was only a [little|small] owl, learning to
    dance.""",
)

GIFT = (
    """{open} {when}, {his} [aunt|uncle|grandmother] gave {him} a {gift}. "[It is all for me|I
    will keep it all|How lucky I am]," said {name}. / On the way home, {he} met a {how} {guest}.
    "{plea}," said the {guest}. {Name} looked at the {gift}. {He} looked at the {guest}. /
    "[Half is for you|Let us share it]," said {name}. {share} / {later} / [{night}|"You shared
    with me," said the {guest}, "and I do not forget."|"Thank you," said {name}. "You were kind
    first," said the {guest}.|What you share comes back to you.]""",
    "gift how guest plea share later",
    """loaf of bread / hungry / bird / I have had no supper / They ate the loaf of bread
    together, and [it was good|nothing was left]. / That winter, {name} was lost in the snow.
    The bird flew [slowly|from tree to tree] and showed {him} the way home.

    bag of nuts / hungry / squirrel / I have nothing to eat / The squirrel ate [six|ten] nuts
    and hid the others [in the ground|under a tree]. / That winter, {name} had nothing to eat.
    The squirrel came with [all the nuts it could find|a bag of nuts], and one [button|old
    sock].

    warm blanket / cold / lamb / I am so cold / {He} cut the blanket in two, and now [both were
    warm|there were two small blankets]. / In spring, the lamb had [far too much|so much] wool.
    It gave {name} a new blanket, better than the first.

    pot of soup / tired / sailor / I have walked all day / They ate the soup [under a tree|on a
    log], and the sailor told a story about a [very slow|singing] whale. / In summer, the sailor
    came back with a [boat|little red boat] and took {name} to see the whale.

    bag of seeds / sad / gardener / My garden is empty / They put the seeds in the ground, [side
    by side|row by row], and sang to them. / By summer, there were flowers everywhere. The
    gardener put the [biggest|first] one in {name}'s hat.

    jar of honey / big / bear / My [head|nose] hurts, and only honey can help / The bear ate
    half of the honey, and then [the spoon|a bit more]. / That winter, the snow was deep. The
    bear took {name} home on its back, and sang all the way.""",
)

PLOTS = (TROUBLE, TROUBLE, LOST, PROMISE, QUARREL, TRICK, FEAR, GIFT)
