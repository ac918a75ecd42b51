"""What users say when they want several things done, one after another.

Slots: {p} and {q} paths, {ps} several, {d} and {g} folders, {n} a name, {e} an extension, {c} a content, {a} and {b} old and
new text; in the templates that join wishes, {x}, {y} and {z} are orders.
"""

from __future__ import annotations

from trainer.grammars.mechanics import sentences

JOIN_TWO = (
    *sentences("filesystem/join_two"),
    "first {x}, then {y}",
    "{x} and then {y}",
    "{x}, then {y}",
    "{x} and {y}",
    "{x}, and after that {y}",
    "{x}. (then|after that|afterwards|next|also|besides|and|when done,|once that is done,|finally|in addition,) {y}",
    "{x}; {y}",
    "{x} && {y}",
    "(please|can you|could you|i'd like you to|i want you to|would you) {x}(|,) and (also|then|afterwards|) {y}",
    "two (things|jobs|tasks|wishes|steps): {x}(, and|;|, then) {y}",
    "1. {x} 2. {y}",
    "1) {x}\n2) {y}",
    "- {x}\n- {y}",
    "step 1: {x}. step 2: {y}",
    "to begin with, {x}, and (once that is done|after it|later) {y}",
    "(i need two things|do two things for me): {x}, plus {y}",
    "{x}(,|) (as well as|and besides|and in the same go|and at the end|before you) {y}",
    "(start|begin) like this: {x}. (continue with this|go on so|then comes this): {y}",
)
# Here the first call is said last.
JOIN_REVERSED = (
    *sentences("filesystem/join_reversed"),
    "before you {y}, {x}",
    "{y}, but first {x}",
    "{y}, but (not before|only after) this: {x}",
    "after this: {x}, (please|) {y}",
    "{y}. (before that|but first of all|to begin with|prior to that)(|,) {x}",
)
JOIN_THREE = (
    *sentences("filesystem/join_three"),
    "{x}, {y} and {z}",
    "{x}, then {y}, (finally|and last|and at the end|and then) {z}",
    "first {x}, second {y}, third {z}",
    "1. {x} 2. {y} 3. {z}",
    "{x}; {y}; {z}",
    "- {x}\n- {y}\n- {z}",
    "three (things|jobs|tasks|steps): {x}; {y}; {z}",
    "{x}. then {y}. (when done|after that|finally)(|,) {z}",
    "{x} && {y} && {z}",
)
FIND_READ = (
    *sentences("filesystem/find_read"),
    "(track down|hunt for|hunt down|spot|unearth) {n}(|,) (and|then|afterwards) (recite it|pull up its text|dump it)",
    "i lost {n}(;|,) once (spotted|you have it), (dump|read|recite|show) it",
    "(find|locate|search for|look for) {n} and (read|open|show|summarize|explain|print) it(| to me| for me)",
    "(find|search for|look for) {n}, then (tell me what is in it|show me the contents|print it|read it out|sum it up)",
    "i don't (know|remember) where {n} is, can you (open|read|show|print) it(|?)",
    "{n} (is|lies|sits|must be) in (some folder|one of the folders), (read|open|show) it",
    "(no idea|who knows|i forgot) where i put {n}, but i (need|want) to (read|see) (it|its text)",
    "what (is|stands) in {n}? it (is|lies) in some (folder|subfolder)",
    "(search|look) (everywhere|in all folders) for {n} and tell me its contents",
    "(wherever|in whatever folder) {n} (is|lies), (show|read|print) it",
    "(dig up|trace|discover|figure out where) {n} (is|) and read (it|its text)(| to me)",
)
FIND_MEDIA = (
    *sentences("filesystem/find_media"),
    "(find|locate|look for) the (picture|image|recording|photo|file) {n} and (show|open|display|play|describe) it",
    "(somewhere|in some folder) (is|lies) {n}, (show|play|open|display) it",
    "i don't know where {n} is, but i (want|need) to (see|hear) it",
)
FIND_INFO = (
    *sentences("filesystem/find_info"),
    "(find|locate|search for) {n} and tell me (its size|when it was changed|its permissions)",
    "how (big|old|large) is {n}? (it is|it lies|it must be) (somewhere|in some folder|in one of the folders)",
    "when was {n} changed? i forgot where it (is|lies)",
    "(search|look) for {n} and (check|report|state|give me) its (size|age|date|details)",
)
FIND_EDIT = (
    *sentences("filesystem/find_edit"),
    "(find|locate|search for|look for) {n} and (change|replace|turn|switch) {a} (to|into|with) {b} in it",
    "{n} is (somewhere|in some folder), in it {a} (should|must|has to) (be|become) {b}",
    "(no idea|i don't know) where {n} is, but (change|replace|turn) {a} (to|into|with) {b} there",
    "there is a (mistake|typo|slip) in {n}, which lies (in some folder|somewhere): {a} should be {b}",
)
FIND_RENAME = (
    *sentences("filesystem/find_rename"),
    "(find|locate|search for|look for) {n} and (rename it to|call it|name it|give it the name) {q}",
    "{n} lies (somewhere|in some folder), (rename it to|call it|name it) {q}",
    "(wherever|in whatever folder) {n} is, (rename it to|its name should be) {q}",
)
FIND_MOVE_ONE = (
    *sentences("filesystem/find_move_one"),
    "(find|locate|search for|look for) {n} and (move|put|send|carry) it (to|into) {d}",
    "{n} is (somewhere|in some folder), (move|put|stick|stow) it (into|in) {d}",
    "i don't know where {n} (is|lies), but it (belongs|must go) (in|into) {d}",
)
FIND_READ_ALL = (
    *sentences("filesystem/find_read_all"),
    "(find|search for|look for) (all|every|the) {e} files and (read|show|open|summarize|print|compare) them",
    "what do (all|) (the|our|my) {e} files say(|?)",
)
FIND_INFO_ALL = (
    *sentences("filesystem/find_info_all"),
    "how (big|old|large) are (all|my|our) {e} files, (one by one|each of them|each)(|?)",
    "(find|search for) (all|the) {e} files and (check|tell me|report) when each was changed",
    "(find|search for) (all|the) {e} files and (check|tell me|report) their permissions one by one",
)
FIND_MOVE = (
    *sentences("filesystem/find_move"),
    "(hunt down|track down|round up) (the|all) {e} files and (shift|relocate|transfer) them into {d}",
    "collect (all|the|every one of the) {e} files in {d}",
    "(find|search for) (all|the) {e} files and (move|put) them (to|into|in) {d}",
    "(move|put|send|sort|stow) (all|every|each) (of the|) {e} (files|file) (to|into|in) {d}",
    "(all|the|every) {e} (files|file) (should|must|has to|have to) go (into|in) {d}",
    "(tidy up|clean up|put things in order): (all|every|the) {e} files into {d}",
    "gather (all|every|the) {e} (files|documents) in {d}",
)
NEW_FOLDER = "(a new folder|a folder|the new directory|a new directory called|a new folder named) {d}"
LIST_READ = (
    *sentences("filesystem/list_read"),
    "(browse|enumerate|peek inside|survey) {d}(|,) (and|then|afterwards) (pull up|fetch|recite|grab) {n}",
    "(list|check) {d} and (read|open|show|print) {n}",
    "(look|check|glance|peer) (in|into) {d}, then (read|show me|open|print) {n}",
    "what's in {d}? (and show me|then open|and then read|also print) {n}",
    "(show|list|print) the (files|contents) (in|of) {d} and (after that|then|afterwards) (read|open) {n}",
    "(after listing|once you have listed|having listed) {d}, (read|open|show) {n}",
)
LIST_ALL = (
    *sentences("filesystem/list_all"),
    "(summarize|summarise|study|show) (every one of|each of) the (files|documents) in {d}",
    "(list|look into|open) {d} and (read|show me|summarize|print) everything in it",
    "what do the documents in {d} say(|?)",
    "(explain|sum up) what (all|) the documents in {d} (say|are about|have in common)",
    "(every|each) (file|document) in {d} (needs|has) to be (read|shown|summarized)",
    "i (want|need) to (read|see) (everything|all) that is (written|stored|said) in (the files in|) {d}",
)
LIST_MOVE = (
    *sentences("filesystem/list_move"),
    "(move|put|send|carry|push) (everything|all files|all|each file) (from|in|out of) {d} (to|into) {g}",
    "(empty|clear) {d}: (everything|all files|all) (goes|should go|must go) (to|into) {g}",
    "the files in {d} (belong|should be|have to go) (in|into) {g}",
    "(list|look into) {d} and (move|put) (what is there|whatever you find|its files) (to|into) {g}",
)
LIST_INFO = (
    *sentences("filesystem/list_info"),
    "when was (each|every) (file|document) in {d} (changed|modified|created|edited)(|?)",
    "(show|tell|give) me the (permissions|dates|modification times|rights) of (each|every) (file|document) in {d}",
    "(list|look into) {d} and (check|report|get) the (metadata|details|dates) of (every|each) file(| there)",
)
COPY = (
    *sentences("filesystem/copy"),
    "(duplicate|clone|mirror) {p} (as|into|to|under) {q}",
    "copy {p} to {q}",
    "cp {p} {q}",
    "(make|create) a copy of {p} (called|named|at|under|as) {q}",
    "(read|open) {p} and (save|write|store|put) the same (text|content|thing) (to|in|into|under) {q}",
    "(back up|save a copy of|mirror) {p} (as|to|under|at) {q}",
    "(save|store|keep) (the text|the content|what is in|all) of {p} (also|once more|too|a second time) (in|as|under) {q}",
    "{q} should (get|be given) the same content as {p}",
    "i( want| need|'d like) {p} twice, the second one (as|at|under|called) {q}",
    "(before|so that) (i|we) (change|break|edit) {p}, (keep|save|make) a copy (as|in|at) {q}",
)
NEW_MOVE = (
    *sentences("filesystem/new_move"),
    "(establish|spin up|lay out|produce) a (folder|directory) {d} and (shift|relocate|transfer) {p} (there|into it)",
    "(spin up|establish) {d} as a (folder|directory), (afterwards|then) (relocate|shift|move) {p} into it",
    "(create|make|add|open|start) (the folder|a folder|a new directory) {d} and (move|put|stick|drop) {p} (into|in) it",
    "move {p} to a new (folder|directory) {d}",
    "mkdir {d} && mv {p} {d}",
    "(make|create) {d} and (file|put|store|move) {p} there",
    "there is no (folder|directory) {d} yet: (make|create) (it|one) and (put|move|stow) {p} (in|inside|there)",
)
NEW_WRITE = (
    *sentences("filesystem/new_write"),
    "(establish|spin up) a folder {d}(|,) and (within it|in it) {n} (holding|with) {c}",
    "(spin up|establish|lay out) a folder {d} and (jot|note) {c} down in {n} there",
    "(create|make|add|open) a folder {d} and in it a file {n} (that says|containing|with|saying) {c}",
    "mkdir {d} and (write|save|store|put) {c} (to|in|into) {n} in it",
    "(make|create|start) (the|a new) (folder|directory) {d} and (save|write|store) {c} (there|in it) (as|in) {n}",
    "(first|) (a|the|) new folder {d}, then (in it|inside) {n} with {c}",
)
NEW_SEVERAL = (
    *sentences("filesystem/new_several"),
    "(create|make|add|set up|prepare|open) (the|three|new|) (folders|directories) {ps}",
    "mkdir {ps}",
    "i (need|want) (folders|directories|the folders|new folders) (called|named|) {ps}",
    "(new|) (folders|directories): {ps}",
    "there should be (folders|directories) (called|named|) {ps}",
)
READ_EDIT = (
    *sentences("filesystem/read_edit"),
    "(fetch|pull up|dump|grab) {p} (first|), (afterwards|then) (swap|exchange) {a} for {b}",
    "(pull up|fetch|bring up) {p}, then (substitute|put) {b} for {a}",
    "(read|open|show|print) {p}, then (replace|change|switch|turn) {a} (with|to|into) {b}",
    "look at {p} and (change|update|turn) {a} (to|into) {b}",
    "(show|read) me {p}(|,) and (after that|afterwards|then) (change|replace|update) {a} (to|with) {b} (in it|there)",
    "(check|study|inspect) {p} first, then (replace|change) {a} (with|to|by) {b}",
)
EDIT_CHECK = (
    *sentences("filesystem/edit_check"),
    "(change|replace|turn|switch) {a} (to|with|into) {b} in {p} and show me the (result|file|new text|outcome)",
    "(update|fix|modify) {a} to {b} in {p}, then (read|open|print|show) it",
    "in {p}, {a} should be {b}; (after that|then|afterwards) (read|show|print) (me|) the (whole|entire|full) (file|text)",
)
WRITE_CHECK = (
    *sentences("filesystem/write_check"),
    "(jot|note) {c} down in {p}(|,) (afterwards|then|and) (recite it|read it back|pull it up again)",
    "(record|note) {c} under {p} and (pull it up again|recite it)",
    "(write|save|store|put) {c} (to|in|into) {p} and (read|show|print) it (back|again|afterwards)",
    "save {c} in {p}, then (check|show me|verify|make sure) that it is there",
    "(create|make) {p} with {c} and (then|afterwards) (read|show|open) it (to check|for me|so that i can be sure)",
)
WRITE_INFO = (
    *sentences("filesystem/write_info"),
    "(create|make) {p} with {c}, then (check|show|report) its (size|details|metadata)",
)
WRITE_MOVE = (
    *sentences("filesystem/write_move"),
    "(write|save|put) {c} (to|in|into) {p}, then move (it|that file) (to|into) {d}",
    "(create|make) {p} with {c} and (afterwards|then|finally) (put|move|stow) it (in|into) {d}",
)
INFO_TWO = (
    *sentences("filesystem/info_two"),
    "of {p} and {q}, which (one |)(weighs more|is heavier|is newer|was touched last)(|?)",
    "{p} versus {q}: which (got touched most recently|is the heavier one|is older|has more bytes)(|?)",
    "which is (bigger|newer|older|smaller|heavier|more recent), {p} or {q}(|?)",
    "compare the (size|age|dates|permissions) of {p} and {q}",
    "is {p} (bigger|newer|larger|smaller) than {q}(|?)",
    "(did|was) {p} (change|changed) (before|after|later than|earlier than) {q}(|?)",
    "{p} or {q}: which one (was changed last|takes more space|is older|is heavier)(|?)",
    "(tell|show) me (which|what) is (older|newer|larger|smaller): {p} or {q}",
)
INFO_EACH = (
    *sentences("filesystem/info_each"),
    "(show|give|get|tell) me the (size|age|details|metadata|date|permissions) of {ps}",
    "when were {ps} (changed|modified|created|edited)(|?)",
    "how (big|large|old) are {ps}(|?)",
    "(stat|weigh) {ps}",
    "(check|verify|see) (if|whether) {ps} exist",
    "(do|are) {ps} (exist|there|still there|writable|read-only)(|?)",
)
MOVE_EACH = (
    *sentences("filesystem/move_each"),
    "(move|put|send|carry|stow|push|take) {ps} (to|into|over to) {d}",
    "{ps} (belong|should go|have to go|must go|go) (in|into) {d}",
    "mv {ps} {d}",
    "i( want| need|'d like) {ps} (moved to|in|inside|to be in) {d}",
    "{ps} (should|must|need to|have to) be (moved|sent|put|carried) (to|into) {d}",
    "(tidy up|clean up): {ps} (to|into) {d}",
)
SIZES_READ = (
    *sentences("filesystem/sizes_read"),
    "(pull up|fetch|dump|recite) whichever file of {d} is the (heaviest|biggest)",
    "(recite|fetch|pull up) the (heaviest|bulkiest|largest) file (within|of) {d}",
    "(print|summarize) the biggest (file|document) in {d}",
    "what does the (biggest|longest) file in {d} say(|?)",
    "(check|see) (which|what) (file|document) in {d} is the biggest, and (read|open|show) it",
    "(sort|list|show) {d} by size and (then|) (open|read) the (first|top|largest) (one|file)",
)
SIZES_MOVE = (
    *sentences("filesystem/sizes_move"),
    "(move|put|send) the (biggest|largest) (file|document) (of|from) {d} (to|into) {g}",
    "the biggest (file|thing) in {d} (belongs|should go|must go) (in|into) {g}",
)
TREE_READ = (
    *sentences("filesystem/tree_read"),
    "(unfold|expand) {d} all the way down, (afterwards|then) (fetch|pull up|recite) {p}",
    "(show|print|draw) the tree of {d}, then (read|open|show) {p}",
    "how is {d} structured? (and|then) (show me|read|open) {p}",
    "(map|show|print) {d} with its subfolders and (then|afterwards|after that) (read|open) {p}",
)
TREE_NEW = (
    *sentences("filesystem/tree_new"),
    "(show|print|draw) the (tree|structure|hierarchy) of {d}, then (create|make|add) a folder {n} in it",
    "how is {d} (structured|organized|laid out)? (after that|then) (add|make|create) a (folder|subfolder) {n} (there|in it)",
)
ROOTS_LIST = (
    *sentences("filesystem/roots_list"),
    "(enumerate|reveal) your permitted directories (along with|and) (their items|what is in them|what they hold)",
    "(show|list) the (directories|folders) you can (access|use) and what is in them",
    "which folders (may|can) you use, and (what files are there|what's in them|what do they contain)(|?)",
    "(where|in which folder) are you allowed to work, and what is (there|in it)(|?)",
    "(check|find out) where you may (read|write) and list (that|it|the place|what is there)",
    "(tell|show) me your (allowed|permitted|accessible) (directories|folders), then (list|show) (their contents|what they hold)",
)
IF_READ = (
    *sentences("filesystem/if_read"),
    "(check|see|find out|look) (if|whether) {p} exists(|,) and if (so|it does|yes)(|,) (read|show|open|print) it",
    "if there is a {p}, (read|show|open|print) it; (check|make sure) first",
    "is {p} there? (then|if so|in that case) (read|show|open) it",
    "does {p} exist? if (yes|it does|so), (show me the text|read it)(|?)",
)
IF_WRITE = (
    *sentences("filesystem/if_write"),
    "(check|see|find out) (if|whether) {p} exists(|,) and if (not|it doesn't)(|,) (create|write|make) it with {c}",
    "(create|write|make) {p} with {c} unless it (exists already|is already there|exists); (check|look) first",
    "is {p} there? if not, (write|save|put) {c} (to|into|in) it",
    "(only|) if {p} is (missing|not there|absent), (write|create) it with {c}(|; check that first)",
)
