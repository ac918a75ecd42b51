"""How users of any toolset speak: two parties that share no template, no verb of their own and no value, one to train on and
one to evaluate on. What the tools themselves bring (their nouns, the labels of parameters) both have to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.grammars import filesystem_heldout, filesystem_train
from trainer.grammars.mechanics import Dice, Vocabulary, with_typo, words


@dataclass(frozen=True)
class Wording:
    """One party. In `verbs` are the words for a family of deeds; `requests` to `follow` are templates of {do}, {given}, {said},
    {first} and {second}; `labelled` to `switches` are formats that make {said} and, wrapped, {given}."""

    name: str
    tree: Vocabulary
    values: Mapping[str, Sequence[str]]
    verbs: Mapping[str, Sequence[str]]
    requests: Sequence[str]
    bare: Sequence[str]
    pairs: Sequence[str]
    follow: Sequence[str]
    labelled: Sequence[str]
    wrapped: Sequence[str]
    lone: Sequence[str]
    another: Sequence[str]
    switches: Mapping[bool, Sequence[str]]
    quotes: Sequence[str]
    chat: Sequence[str]
    outside: Sequence[str]
    answers: Sequence[str]
    systems: Sequence[str]
    openings: Sequence[str]
    endings: Sequence[str]
    slips: bool

    def finish(self, dice: Dice, text: str, kept: Sequence[str]) -> str:
        """Manners, capitals and, with `slips`, typing errors."""
        if dice.one_in(5):
            text = dice.choice(self.openings) + text
        if dice.one_in(6):
            text += dice.choice(self.endings)
        if self.slips and dice.one_in(9):
            text = with_typo(dice, text, kept)
        first = text.split(" ")[0]
        return text if dice.one_in(2) or any(first in part for part in kept) else text[:1].upper() + text[1:]


# The families of deeds by the verbs that tools are named with.
FAMILIES = {
    verb: family
    for family, said in (
        ("show", "get,read,show,view,fetch,retrieve,open,display,describe,load,inspect,print,check"),
        ("list", "list,enumerate,browse"),
        ("find", "search,find,query,lookup,locate,match"),
        ("create", "create,add,new,insert,register,make,append,save,store,write,put,upload,post"),
        ("delete", "delete,remove,clear,erase,drop,destroy,unregister"),
        ("change", "update,edit,change,modify,set,patch,rename,replace"),
        ("send", "send,notify,mail,publish,share"),
        ("run", "run,execute,start,call,invoke,trigger,launch"),
        ("stop", "stop,cancel,end,close,abort,kill"),
        ("count", "count,calculate,compute,sum,measure,convert"),
    )
    for verb in words(said)
}

TRAIN = Wording(
    name="train",
    tree=filesystem_train.GRAMMAR.words,
    values={
        "name": words(
            "Anna Weber,Tom Okafor,Project Apollo,Blue Harbor,Maria Silva,Team Falcon,Kenji Ito,Acme Bank,"
            "Lena Koch,Rex,Green Valley,Oliver Stone,Sara Lund,Delta Hotel,Nora Diaz,River Cafe,Max Braun,"
            "Site Seven"
        ),
        "kind": words("person,project,company,team,event,city,tool,book,customer,product,urgent,internal,draft,weekly"),
        "place": words("Berlin,Paris,Tokyo,Boston,Madrid,Toronto,Oslo,Vienna,Dublin,Seoul"),
        "word": words("jazz,budget,invoice,solar,coffee,python,garden,travel,music,chess,marketing,security,winter,football"),
        "phrase": words(
            "likes green tea,works from home,speaks German,meets on Mondays,prefers short mails,plays chess,"
            "moved to Berlin,ships in May,needs a new laptop,pays by card,lives near the park,starts at nine,"
            "owns two cats,is on leave until June"
        ),
        "prefix": words("T,A,ORD,REF,BX"),
        "host": words("example.com,shop.example.com,acme.example"),
        "zone": words("Europe/Berlin,Asia/Tokyo,America/New_York,UTC,Australia/Sydney,Africa/Cairo"),
        "command": words("ls -l,date,echo hello,uname -a,df -h"),
        "color": words("red,dark green,#ff8800,navy"),
        "language": words("de,en-US,es,Japanese,pt-BR"),
        "currency": words("EUR,USD,JPY,CHF"),
        "branch": words("main,develop,feature/login,release-2"),
    },
    verbs={
        "show": words("show,get,read,open,display"),
        "list": words("list,show all"),
        "find": words("search for,find,look for"),
        "create": words("create,add,make,save"),
        "delete": words("delete,remove,clear"),
        "change": words("update,change,edit,set"),
        "send": words("send,share"),
        "run": words("run,start,execute"),
        "stop": words("stop,cancel,end"),
        "count": words("calculate,count,compute"),
    },
    requests=(
        "{do} {given}", "{do} {given}(| for me| now| please)", "please {do} {given}", "(can|could) you {do} {given}(|?)",
        "(i want|i need|i'd like) to {do} {given}", "i (want|need) you to {do} {given}", "help me {do} {given}",
        "go ahead and {do} {given}", "we (need|have) to {do} {given}", "let's {do} {given}", "{said}: {do}(| please)",
        "here is what i have: {said}. now {do}", "{do}, i mean {said}",
        "{do} {given} and tell me (when it is done|how it went)",
    ),
    bare=(
        "{do}", "{do}(| for me| now| please)", "please {do}", "(can|could) you {do}(|?)", "(i want|i need) to {do}",
        "i (want|need) you to {do}", "go ahead and {do}", "let's {do}", "help me {do}",
    ),
    pairs=("{first}, then {second}", "{first} and after that {second}", "first {first}. then {second}",
    "{first}. next {second}"),
    follow=("now {do} {given}", "{do} {given} too", "ok, and {do} {given}", "and now please {do} {given}"),
    labelled=("{label} {value}", "{label}: {value}", "{label} = {value}", "the {label} is {value}", "{label} \"{value}\""),
    wrapped=("with {}", "({})", "using {}", ": {}", ", {}", "- {}"),
    lone=("{}", ": {}", "called {}", "- {}"),
    another=("; and another one with ", "; also one with ", " plus one more, ", "; second: "),
    switches={True: ("with {label} on", "{label}: yes", "and {label}"), False: ("with {label} off", "{label}: no",
    "no {label}")},
    quotes=("{}", "{}", '"{}"'),
    chat=(
        "(hi|hello|hey)(| there|!)", "(thanks|thank you)(|!| a lot)", "how are you(| today)?", "what can you do(| for me)?",
        "tell me a (joke|story|riddle)", "what is the capital of (France|Peru|Japan)?", "who wrote (Hamlet|Faust)?",
        "explain (gravity|inflation|photosynthesis)(| in one sentence)", "what is (12 times 8|15 percent of 60|7 plus 9)?",
        "translate (good morning|thank you) into (Spanish|German|Italian)",
        "write a (poem|limerick) about (autumn|the sea|cats)",
        "what does (API|HTML|CPU) stand for?", "(good night|bye|see you)",
        "give me three tips for (presentations|interviews)",
        "is (tea|coffee) healthy?", "i am (bored|tired|happy) today",
        "what is the difference between (a crow|a raven) and a magpie?",
    ),
    outside=(
        "what is the weather in (Rome|Denver|Oslo)(| tomorrow)?", "book a (flight|table|hotel) for (two|Friday)",
        "call (mom|the office|a doctor)", "play some (rock|piano) music", "turn (on|off) the (lights|heating)",
        "order (a pizza|groceries)", "set an alarm for (six|noon)", "take a (selfie|screenshot)",
        "what is the price of (gold|oil) now?",
        "drive me to the (airport|station)", "pay my (rent|phone bill)", "print my (boarding pass|ticket)",
    ),
    answers=("Done.", "Here is what I found.", "That is it.", "It is done.", "Here you are."),
    systems=("You are a helpful assistant.", "Use the tools when they help.", "Answer briefly. Today is Monday."),
    openings=("hi, ", "hey, ", "ok, ", "um, ", "quick one: ", "next: "),
    endings=(" thx", ", thanks", " please", "."),
    slips=True,
)  # fmt: skip

HELDOUT = Wording(
    name="heldout",
    tree=filesystem_heldout.GRAMMAR.words,
    values={
        "name": words(
            "Priya Nair,Captain Moss,Operation Kestrel,Old Quarry,Ingrid Holm,Squad Ember,Yusuf Demir,"
            "Northwind Ltd,Zara Petit,Biscuit,Stone Bridge,Hugo Lindqvist,Amber Lodge,Ravi Menon,Copper Kettle"
        ),
        "kind": words(
            "engineer,institute,festival,vehicle,recipe,hobby,village,device,supplier,confidential,seasonal,"
            "archive"
        ),
        "place": words("Lisbon,Nairobi,Quito,Helsinki,Osaka,Denver,Prague,Cairo,Lima"),
        "word": words("orchid,ledger,turbine,falcon,saffron,violin,glacier,compass,pottery,astronomy,cycling,lantern"),
        "phrase": words(
            "collects stamps,was founded in 1987,dislikes early calls,repairs clocks,sings in a choir,"
            "rides a red bike,closes on Sundays,grew up in Peru,drinks oat milk,wants quarterly figures,"
            "keeps bees"
        ),
        "prefix": words("Q,ZK,LOT,CASE,M"),
        "host": words("kestrel.example.org,mail.example.net,quarry.example"),
        "zone": words("Europe/Lisbon,Asia/Kolkata,America/Bogota,Pacific/Auckland,Africa/Nairobi"),
        "command": words("pwd,whoami,cat notes,uptime,du -sh"),
        "color": words("teal,crimson,#0a5c7f,ivory"),
        "language": words("fr,en-GB,fi,Korean,it-IT"),
        "currency": words("GBP,SEK,INR,BRL"),
        "branch": words("trunk,hotfix/timeout,staging,topic-9"),
    },
    verbs={
        "show": words("pull up,bring up,let me see,reveal"),
        "list": words("run through,lay out,recite"),
        "find": words("hunt for,track down,dig up"),
        "create": words("set up,establish,jot down,put in"),
        "delete": words("get rid of,wipe,scrap"),
        "change": words("revise,adjust,alter"),
        "send": words("dispatch,pass on"),
        "run": words("kick off,fire up"),
        "stop": words("halt,call off"),
        "count": words("work out,figure out"),
    },
    requests=(
        "kindly {do} {given}", "(would|will) you {do} {given}?", "it's time, {do} {given}", "your next job: {do} {given}",
        "do me a favour: {do} {given}", "{do} {given}, would you", "{do} {given}, if it isn't too much trouble",
        "my boss says: {do} {given}", "could somebody {do} {given}?", "{said}. With that, {do}", "take {said} and {do}",
        "whenever there's a moment, {do} {given}", "would you mind? {do} {given}",
    ),
    bare=(
        "kindly {do}", "(would|will) you {do}?", "it's time, {do}", "your next job: {do}", "do me a favour: {do}",
        "{do}, would you",
        "my boss says: {do}", "could somebody {do}?", "whenever there's a moment, {do}",
    ),
    pairs=("{first}; afterwards {second}", "{first}, and once that's finished {second}",
    "start by this: {first}. Finally, {second}"),
    follow=("great. {do} {given} as well", "one more wish: {do} {given}", "splendid, so {do} {given}"),
    labelled=("{value} as the {label}", "{label} → {value}", "{value} for {label}", "{label} being {value}"),
    wrapped=("— {}", "[{}]", "given {}", "; details: {}", ", taking {}"),
    lone=("— {}", ", namely {}", "[{}]", "that goes by {}"),
    another=("; besides that, ", "; a further one: ", " || "),
    switches={True: ("{label} enabled", "{label} → true"), False: ("{label} disabled", "{label} → false", "skip {label}")},
    quotes=("{}", "{}", "'{}'", "«{}»"),
    chat=(
        "(greetings|howdy|cheers)(|!| friend)", "how tall is (Everest|the Eiffel tower)?",
        "who discovered (penicillin|radium)?",
        "compose a (haiku|sonnet) on (rain|libraries)", "why does a (rainbow|battery) (work|appear)?",
        "square root of (81|144)?",
        "(much appreciated|brilliant|splendid)(|!)", "what's your name?", "(I feel lonely|my dog is ill|I got promoted)",
        "which planet is closest to the sun?", "what are good habits for (sleeping well|studying)?",
        "any advice on (moving house|jet lag)?",
        "how do vaccines protect people?", "define (entropy|irony)",
    ),
    outside=(
        "will it rain in (Lisbon|Cairo) (tonight|this weekend)?", "ring (Grandma|the landlord)",
        "buy (two pizzas|printer ink)",
        "reboot the (router|laptop)", "who won the (match|election) yesterday?", "hail a taxi",
        "water the plants on my balcony",
        "dim the lamp in the (kitchen|hall)", "stream a (film|podcast)", "reserve seats at the (opera|cinema)",
        "fax this to the office",
        "feed my cat at (six|noon)",
    ),
    answers=("Sure, there you go.", "All set.", "Finished."),
    systems=("Be of service.", "You assist a small office. Be polite and precise.", "Never make things up."),
    openings=("So, ", "Right. ", "Good evening! ", "Well, "),
    endings=(" - cheers", "; much obliged", "!"),
    slips=False,
)  # fmt: skip
