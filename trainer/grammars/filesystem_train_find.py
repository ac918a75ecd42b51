"""What users say when they want to know where something is.

Of each kind `…_DO` holds orders, which can follow "please" or "then", and `…_SAY` sentences that stand alone.
Slots: {n} a name, {d} a folder, {e} an extension as it is said, {w} a part of a name, {e0} and {w0} the bare ones.
"""

from __future__ import annotations

from trainer.grammars import filesystem_train_others_look as others
from trainer.grammars.mechanics import evenly, sentences

FIND_EXT_DO = evenly(
    sentences("filesystem/find_ext_do"),
    *others.FIND_EXT_DO,
    "(find|search for) (all|every|the|each|any|all the|) {e} (files|file|documents) (in|under|below|inside) {d}",
    "(locate|list|show me) (all|every|the|each|any|all the|) {e} (files|file|documents) (in|under|below|inside) {d}",
    "(find|search for) (all|every|the|each|any|all the|) {e} (files|file|documents) (within|somewhere in) {d}",
    "(locate|list|show me) (all|every|the|each|any|all the|) {e} (files|file|documents) (within|somewhere in) {d}",
    "(look for|seek|trace) (all|every|the|each|any|all the|) {e} (files|file|documents) (in|under|below|inside) {d}",
    "(detect|dig up|gather) (all|every|the|each|any|all the|) {e} (files|file|documents) (in|under|below|inside) {d}",
    "(look for|seek|trace) (all|every|the|each|any|all the|) {e} (files|file|documents) (within|somewhere in) {d}",
    "(detect|dig up|gather) (all|every|the|each|any|all the|) {e} (files|file|documents) (within|somewhere in) {d}",
    "(search|look|sift|go|dig|sweep) through {d} for {e} (files|documents)",
    "(search|comb|sweep|scour) {d} for {e} (files|documents|things)",
    "find {d} -name '*.{e0}'",
    "(tell|show) me (which|what|where the) {e} files (are|lie|exist|sit) (in|under|below|somewhere in) {d}",
    "(gather|get|find|list) the (paths|locations|names) of (all|the|every|any) {e} (files|file|documents) (in|below|under) {d}",
)
FIND_EXT_SAY = evenly(
    sentences("filesystem/find_ext_say"),
    *others.FIND_EXT_SAY,
    "(which|what) {e} (files|documents) (are there|exist|do we have) (in|under|below|anywhere in|somewhere under) {d}(|?)",
    "(which|what) {e} (files|documents) (can be found|lie) (in|under|below|anywhere in|somewhere under) {d}(|?)",
    "where are (the|all|my|our) {e} (files|documents) (in|under|below) {d}(|?)",
    "(are there|do we have|is there) (any|some) {e} (files|file|documents) (in|under|below|anywhere in|somewhere in) {d}(|?)",
    "how many {e} (files|documents) (are|lie|are hidden) (under|below|somewhere in|anywhere in) {d}(|?)",
    "i (need|want|'m looking for|am after) (all|every|the|any) {e} (files|file|documents) (in|under|below|from) {d}",
)
FIND_ALL_DO = evenly(
    sentences("filesystem/find_all_do"),
    *others.FIND_ALL_DO,
    "(find|search for|locate) (all|every|all the|each|any|my|our|) {e} (files|file|documents)(| anywhere| everywhere)",
    "(find|search for|locate) (all|every|all the|each|any|my|our|) {e} (files|file|documents)( on all levels|)",
    "(show me|look for) (all|every|all the|each|any|my|our|) {e} (files|file|documents)(| anywhere| everywhere| on all levels|)",
    "(seek|dig up|trace|detect|gather) (all|every|all the|each|any|our|) {e} (files|file|documents)(| anywhere| everywhere)",
    "(seek|dig up|trace|detect|gather) (all|every|all the|each|any|our|) {e} (files|file|documents)( on all levels|)",
    "(look|search|seek|sweep) (everywhere|all over|all folders|the whole workspace|around) for {e} (files|documents)",
    "find . -name '*.{e0}'",
    "(tell|show) me where (the|all|my|our) {e} files (are|lie|sit|hide|live)",
    "(find|get) (the paths of|) (all|every) {e} file (no matter where|wherever they are)",
    "(gather|find|get) (the paths of|) (all|every) {e} (files|file) (from all folders|in any folder)",
    "(find|locate|show me|search for) (everything|anything|all|whatever) (ending in|that ends with) {e}",
    "(find|locate|show me|search for) (everything|anything|all|whatever) (with the extension|with the ending|of type) {e}",
    "(glob|search) **/*.{e0}",
)
FIND_ALL_SAY = evenly(
    sentences("filesystem/find_all_say"),
    *others.FIND_ALL_SAY,
    "where (are|have i put|do we keep) (the|all|all the|our) {e} (files|documents)(|?)",
    "(are|do we have|is) there any {e} (files|file)(| somewhere| anywhere| at all|)(|?)",
    "(which|what) {e} (files|documents) (are there|exist|do we have|have we got)(|?)",
    "i ('m looking for|am after|lost) (every|my|the) {e} (file|documents)(| wherever they are|)",
    "(how many|which) {e} (files|documents) (are there|do we have) (altogether|overall|in all folders|in total|anywhere)(|?)",
    "(where|in which folders) (do|are|can i find) {e} files(| live| lie|)(|?)",
    "any {e} (files|documents)(| around| lying around|)(|?)",
)
FIND_NAME_DO = evenly(
    sentences("filesystem/find_name_do"),
    *others.FIND_NAME_DO,
    "(find|locate|search for|look for|seek|trace|dig up|discover) (the file|a file called|a file named) {n}",
    "(find|locate|search for|look for|seek|trace|dig up|discover) (something called|the document|) {n}",
    "(search|look|dig|seek) for {n}(| everywhere| in all folders| all over the place| wherever it is| on every level)",
    "(find out|check|figure out|work out) where {n} (is|lies|has gone|sits|lives|went|hides|ended up)",
    "(tell|show) me where {n} (is|lies|sits|went|has gone|ended up|lives|can be found)",
    "(tell|show) me (which|what) (folder|directory) {n} (is|lies|sits) in",
    "(give|get|tell) me the (path|location|whereabouts|full path) (of|to) {n}",
    "find . -name {n}",
    "help me (find|locate|get back to) {n}",
    "(search|comb|sweep|go through) (all folders|every folder|the whole workspace|everything) for {n}",
)
FIND_NAME_SAY = evenly(
    sentences("filesystem/find_name_say"),
    *others.FIND_NAME_SAY,
    "where (is|has|did|does) {n}(| end up| live| go| lie| hide)(|?)",
    "(which|what|in which|in what) (folder|directory) (holds|contains|has|lies) {n}(|?)",
    "where (did|have|could) i (leave|save|store|drop|stick|stow) {n}(|?)",
    "i (lost|can't find|misplaced|no longer find|am looking for|'m looking for|mislaid) {n}(|, where is it|, help)(|?)",
    "i (need|want) to (find|locate) {n}(|, no idea where it is|)",
    "(has anyone|have you|did you) seen {n}(|?)",
    "{n} (is lost|has vanished|is missing|went missing|is nowhere to be seen|got lost|disappeared)(|, where is it?|, find it|)",
    "(path|location|whereabouts) of {n}(|?)",
    "is there (a file|something|any file|a document) (called|named) {n}(| anywhere| somewhere|)(|?)",
    "{n} must be (somewhere|in some folder|lying around), where(|?)",
    "there (is|was|used to be) a (file|document) (called|named) {n} (somewhere|in one of the folders), (where|find it)(|?)",
    "(no idea|not sure|who knows|i forgot) where {n} (is|lies|went)",
    "(do|does) {n} exist (anywhere|somewhere|in any folder)(|?)",
)
FIND_NAME_IN_DO = evenly(
    sentences("filesystem/find_name_in_do"),
    *others.FIND_NAME_IN_DO,
    "(find|locate|search for|look for|seek) {n} (in|under|below|somewhere in|inside|within) {d}",
    "(search|comb|sweep|go through) {d} for {n}",
    "(search|look|dig) (in|through|under) {d} for (a file called|a file named|) {n}",
    "find {d} -name {n}",
)
FIND_NAME_IN_SAY = evenly(
    sentences("filesystem/find_name_in_say"),
    *others.FIND_NAME_IN_SAY,
    "where in {d} (is|lies|sits|do i find) {n}(|?)",
    "is {n} (somewhere|anywhere|hidden) (in|under|below) {d}(|?)",
    "{n} (must|should) be somewhere (under|below|in) {d}, where(|?)",
)
FIND_WORD_DO = evenly(
    sentences("filesystem/find_word_do"),
    *others.FIND_WORD_DO,
    "(find|search for|list|show) (all|every|any|the|) (files|file|documents|things) with {w} in the name",
    "(locate|look for|gather) (all|every|any|the|) (files|file|documents|things) with {w} in the name",
    "(find|search for|locate|list) (files|everything|documents|anything) (named like|whose name contains|whose name has) {w}",
    "(find|search for|locate|list) (everything|documents|anything) (called something with|with a name like) {w}",
    "(tell|show) me (which|what) (files|names) (contain|have|include|carry) {w} in (the|their) (names|title)",
    "(tell|show) me (which|what) (documents|folders) (contain|have|include|carry) {w} in (the|their) (names|title)",
    "(search|look) for (file names|names|filenames|titles) (with|containing|that contain|having) {w}",
    "find . -name '*{w0}*'",
    "(gather|get) (everything|all files|all) that has {w} in its (filename|title)",
)
FIND_WORD_SAY = evenly(
    sentences("filesystem/find_word_say"),
    *others.FIND_WORD_SAY,
    "(which|what) (documents|names) (carry|include) {w} in their (names|filename)(|?)",
    "(is|are) there (something|anything) with {w} in its (filename|title)(|?)",
    "(the|its) name (has|contains|includes) {w}, (where is it|find it|i forgot the rest|that is all i know)(|?)",
    "i only (know|remember|recall) that (the|its) (name|filename|title) (has|contains|includes) {w}(|, find it|, where is it?)",
    "i'm looking for (a file|something|a document) with {w} in its title",
    "it was called something (with|like) {w}, where is it(|?)",
    "(any|are there) documents (called|named) something with {w}(|?)",
)
STARTS_DO = evenly(
    sentences("filesystem/starts_do"),
    "(find|list|search for|locate|show me) (all|every|) (files|file|documents|things) (starting|beginning) with {w}",
    "(find|show|search for|locate) (everything|anything|all files) whose name (starts|begins) with {w}",
)
STARTS_SAY = evenly(
    sentences("filesystem/starts_say"),
    "(which|what) (files|documents|names) (start|begin) with {w}(|?)",
    "its name (starts|begins) with {w}, (where is it|find it|i forgot the rest)",
)
