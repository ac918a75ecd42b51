"""What lies in the trees of the training grammar: names of files and folders, contents, and values to write.

Many strings are made up at random, for a model that has only seen words learns words; it has to learn to copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from trainer.grammars.mechanics import Dice, Vocabulary, words

NOUNS = words(
    "apple,river,meeting,invoice,budget,client,draft,garden,travel,recipe,lesson,sprint,release,salary,contact,customer,order,"
    "product,holiday,school,grocery,project,design,server,training,weekly,monthly,annual,old,new,final,team,roadmap,summary,"
    "inventory,survey,feedback,speech,thesis,chapter,letter,contract,guide,manual,login,setup,deploy,backup,cleanup,index,"
    "schema,users,events,metrics,changes,ideas,tasks,agenda,goals,wishlist,bookmarks,passwords,addresses,shopping,diary,rent,"
    "anchor,antenna,apricot,armchair,asteroid,atlas,audit,autumn,balcony,ballot,banner,barcode,basket,battery,"
    "bearing,beehive,bicycle,biology,biscuit,blanket,blueprint,bonus,bottle,bracket,branch,breakfast,brewery,bridge,"
    "brochure,bucket,buffer,cabinet,cable,cactus,camera,campaign,candle,canvas,carbon,cargo,carpet,casino,castle,catalog,"
    "cathedral,cavity,cedar,cement,census,ceramic,chemistry,cherry,chess,chimney,cinema,circuit,citrus,climate,clinic,clock,"
    "coffee,comet,compass,compost,concert,conference,copper,coral,corridor,cottage,cotton,council,courier,cousin,cradle,"
    "cricket,crystal,curtain,cushion,cycle,dairy,damage,dancer,dealer,dentist,deposit,desert,dialog,diamond,dinner,diploma,"
    "discount,dividend,doctor,dolphin,donation,donor,dragon,drawer,driver,drought,economy,editor,election,"
    "elephant,emerald,energy,engine,enzyme,escrow,estate,exam,expense,fabric,factory,farewell,farmer,feather,ferry,"
    "festival,fever,fiber,fiction,finance,fireplace,fitness,flavor,flight,flower,forecast,forest,fountain,freight,"
    "friend,fuel,furniture,galaxy,gallery,garage,garlic,gender,geology,ginger,glossary,glucose,goalkeeper,"
    "grammar,guest,guitar,habitat,hammer,harbor,harvest,headline,health,hedge,helmet,heritage,hiking,history,hockey,"
    "honey,horizon,hospital,hotel,household,hurricane,icon,impulse,income,incident,infant,insect,insulin,insurance,interview,"
    "island,itinerary,ivory,jacket,jigsaw,journal,journey,judge,jungle,kernel,kettle,keyboard,kitchen,kitten,ladder,"
    "laundry,lawyer,leaflet,lecture,legend,lemon,lentil,library,license,lighthouse,lottery,lunar,luggage,lyrics,"
    "machine,magnet,mailbox,mammal,mandate,maple,marble,market,meadow,medicine,melody,memoir,mentor,menu,"
    "mercury,meteor,migration,mineral,minutes,mirror,mission,mobile,module,mosaic,motor,mountain,museum,"
    "mushroom,mustard,navigation,nebula,neighbor,network,newsletter,nickel,notebook,novel,nursery,nutrition,oak,oasis,"
    "ocean,octopus,olive,opera,orbit,orchard,orchestra,origin,outline,oxygen,oyster,packing,painting,palace,panda,parade,"
    "parcel,parking,parlor,passenger,passport,pasta,patent,patient,pavement,payroll,peanut,pebble,pension,permit,"
    "petition,pharmacy,physics,piano,picnic,pigeon,pilot,pipeline,planet,plaster,podcast,poetry,policy,pollen,popcorn,"
    "portrait,postcard,prairie,premium,prescription,printer,profile,prologue,protein,proverb,puzzle,pyramid,quarry,"
    "quiz,quota,rabbit,radar,radiator,railway,rainbow,ranking,receipt,referee,refund,rehearsal,remedy,renovation,rescue,"
    "research,resume,revenue,rhythm,ribbon,robot,roster,rubber,rudder,runway,saddle,sailing,salad,sample,satellite,"
    "scarf,schedule,scholar,science,scooter,season,seminar,sensor,sermon,shelter,shipment,silver,sketch,skyline,soccer,socket,"
    "software,solar,sonnet,souvenir,spectrum,spider,spiral,sponsor,stadium,statue,sticker,storage,storm,strategy,student,"
    "subway,suitcase,sunset,supplier,surgery,sweater,swimming,syllabus,symphony,tailor,tariff,tavern,teacher,telescope,tenant,"
    "tennis,theater,therapy,thunder,ticket,timber,timeline,tissue,toaster,tornado,tourist,tractor,traffic,transit,treaty,"
    "trophy,tunnel,turbine,tutorial,umbrella,uniform,university,vaccine,valley,vanilla,vendor,venue,verdict,veteran,victory,"
    "village,visitor,vitamin,volcano,voucher,voyage,wallet,warehouse,warranty,waterfall,wedding,wellness,"
    "whistle,wildlife,window,winter,wizard,workshop,wrench,yacht,yogurt,zebra,zipcode,"
    "orchid,kestrel,ledger,lantern,vineyard,harbour,falcon,granite,saffron,tundra,violin,walnut,zephyr,bamboo,cobalt,"
    "dynamo,ember,fjord,glacier,hazel,iris,jasper,kiosk,lagoon,nectar,onyx,pepper,quartz,rocket,beacon,canyon,drizzle,"
    "eclipse,fossil,gazette,isotope,greenhouse,todo,memo,note,report,readme,about,info,list,notes,plan,log,file,data,text,"
    "book,page,acorn,almond,alpine,amber,ankle,apron,arena,arrow,ashtray,aspen,attic,badge,bagel,banjo,barley,barrel,basil,"
    "beaver,beetle,bell,belt,bench,berry,bishop,bison,blossom,board,boat,bonfire,boot,border,bowl,bread,breeze,brick,broom,"
    "brush,bubble,bugle,bulb,bundle,burrow,butter,button,cabbage,cabin,camel,canoe,caravan,carrot,cashew,cello,chalk,"
    "channel,charcoal,checklist,cheese,chisel,cider,cinnamon,clay,cliff,cloak,clover,coach,cobweb,coconut,collar,column,"
    "cookie,cork,cosmos,cowboy,crab,crane,crater,crayon,creek,crop,crown,cube,cucumber,cupboard,curry,cypress,daisy,dam,"
    "dawn,deer,delta,denim,dew,dice,dinosaur,dock,dome,donkey,door,dough,dove,drum,duck,dune,dust,eagle,earring,eel,"
    "egg,elbow,elm,emblem,envelope,equator,essay,fan,fence,fern,fig,finch,fir,fish,flag,flame,flask,flint,flood,flute,foam,"
    "fog,folklore,fork,fort,fox,frame,freezer,frog,frost,fruit,fudge,funnel,gate,gazelle,gear,gem,geyser,ghost,giraffe,"
    "glass,globe,glove,goat,gold,goose,gorge,gown,grain,grape,grass,gravel,grove,gum,gutter,hail,hamlet,handle,harp,hat,"
    "hawk,hay,heart,heron,hill,hinge,hive,hoof,hook,hoop,horn,horse,hose,hut,ice,igloo,ink,iron,ivy,jade,jam,jar,jasmine,"
    "jaw,jazz,jeans,jelly,jewel,jug,juice,juniper,kale,keel,kelp,key,kite,kiwi,knee,knife,knot,koala,lace,lake,lamb,"
    "lamp,lane,larch,lasso,lava,lawn,leaf,leather,ledge,lens,lettuce,lid,lily,lime,linen,lion,lizard,loaf,lobby,"
    "lock,locket,loft,loom,lotus,lynx,magpie,mango,mask,mast,mat,maze,medal,melon,mill,mint,mist,moat,mole,moon,moose,moss,"
    "moth,mug,mule,nail,napkin,narwhal,necklace,needle,nest,net,nettle,nougat,nut,oar,oat,oboe,onion,opal,orange,otter,"
    "oven,owl,ox,paddle,pail,paint,palm,pan,papaya,parrot,parsley,path,peach,peacock,pear,pearl,pelican,pencil,pendulum,"
    "penguin,peony,perch,pier,pig,pillow,pine,pipe,plank,plate,plum,pocket,polka,pond,pony,poppy,porch,porcelain,pot,"
    "potato,pram,prism,pulley,pump,pumpkin,puppet,quail,quince,raccoon,racket,radish,raft,rail,rain,raisin,ranch,"
    "raspberry,raven,reed,reef,reindeer,relay,resin,rhino,rice,ridge,ring,rivet,road,robin,rock,roof,root,rope,rose,rug,"
    "rye,sail,salmon,salt,sand,sandal,sapphire,sauce,sausage,saw,scale,scallop,screw,seal,seed,shark,shed,sheep,shell,"
    "shield,ship,shirt,shoe,shore,shovel,shrimp,silk,sky,sled,slipper,sloth,smoke,snail,snake,snow,soap,sock,sofa,soil,"
    "soup,spade,sparrow,spear,spice,spinach,spoon,spring,spruce,squash,squid,squirrel,stable,staff,stair,star,steam,steel,"
    "stone,stool,stork,stove,straw,stream,street,string,sugar,sun,swan,swing,sword,syrup,table,tambourine,tank,tape,tea,"
    "teapot,tent,thistle,thorn,throne,thyme,tide,tiger,tile,tin,toad,toast,tomato,tongs,tooth,torch,tower,toy,trail,train,"
    "tram,tray,tree,trout,truck,trumpet,tulip,tuna,turkey,turnip,turtle,twig,valve,van,vase,vault,veil,velvet,vest,vine,"
    "viper,wagon,wall,waltz,wasp,watch,wave,wax,well,whale,wheat,wheel,willow,wind,wing,wolf,wood,wool,wren,yarn,yew"
)
FOLDERS = words(
    "docs,src,reports,images,archive,scripts,logs,drafts,photos,music,work,private,tests,config,assets,My Files,team-a,2023,"
    "build,invoices,src-old,résumés,letters,exports,game,lib,accounting,admin,alpha,analytics,api,audio,backups,beta,billing,"
    "blog,book,cache,chapters,clients,cloud,community,company,components,core,courses,customers,dashboards,database,"
    "demo,deployments,design-files,dev,devops,docker,editorial,ElmStreet,engineering,environments,essays,events-2022,examples,"
    "experiments,family,figures,final_version,fonts,forms,frontend,fundraising,gadgets,genealogy,graphics,handbook,hardware,"
    "health-plan,helpers,holidays,HR,icons,inbox,infra,interviews,kitchenware,labels,lang,layouts,legal,licenses,"
    "locales,maps,marketing,material,mobile-app,models,modules,newsletters,office,old stuff,orders,outbox,packages,papers,"
    "partners,patches,payments,people,plans,plugins,poems,policies,portfolio,posters,presentations,prototypes,public,"
    "purchases,Q1,Q3 results,quotes,raw,references,releases,research-2,sales,samples,schemas,screens,services,shared_space,"
    "site,slides,sounds,specs,sprints,static,stories,styles,suppliers,support,surveys,tables,tax-2021,templates,"
    "thesis_v2,tickets,timesheets,translations,tutorials,uploads,vendor-list,videos,views,volunteers,wiki,workshops,zürich,"
    "фото,資料,Año Nuevo,été,v2.0,R&D,client (old),2019-03,week_14,backend.v3,"
    "workshops-old,blueprints,vault,studio,pantry,Dépôt,bin2,observatory,field notes,q3,attics,barn,basement,bills,boxes,"
    "budgets,calls,cards,cases,cellar,charts,classes,clubs,code,colours,concerts,corner,cv,decks,depot,desk,diagrams,"
    "downloads,dropbox_old,emails,evidence,exams,exercises,faxes,feeds,fixtures,flat,flyers,freelance,games,garden_2024,"
    "grades,guests,heap,home,homework,incoming,ingredients,jobs,jokes,kids,lab,land,leases,listings,loans,local,lost+found,"
    "mail,meals,memos,misc,mocks,mum & dad,museum_loans,nightly,notebooks,old-laptop,oldies,panel,pictures,pets,pieces,"
    "pins,playlists,printouts,quarter-2,queue,readings,recipes_v1,records,receipts-2020,registers,renders,results,reviews,"
    "rooms,routes,scans,scores,scrapbook,shelf,shots,snippets,songs,sources,spare,stash_a,stuff,temp,texts,theses,things,"
    "thumbs,todos,tools,top-secret,trips,units,user_guides,vocabulary,warehouse-3,web,xmas,year 1,zines,Projects,TEAM,"
    "Area51,kunden,façades,notizen,données_2"
)
_MODIFIERS = words(
    "old,new,final,copy,signed,latest,revised,short,long,big,small,first,second,third,internal,external,public,secret,raw,"
    "clean,merged,partial,full,daily,quarterly,approved,pending,rejected,printed,scanned,main,extra,north,south,blue,red"
)
_ODD = words(
    "Makefile,README,v1.2 (copy),café menu,año-2021,données,.env,notes&tasks,größe,report#3,Übersicht,a.b.c,Dockerfile,LICENSE,"
    ".gitignore,.bashrc,.npmrc,CHANGELOG,Gemfile,Procfile,smörgåsbord,naïve notes,señor,façade,jalapeño,Žižek,"
    "łódka,dům,håndbog,ñandú,été 2020,Straße,über uns,čaj,şeker,Ğ-test,fjörd,órarend,tűzoltó,příklad,déjà-vu,Æon,ångström,"
    "привет,заметки,отчёт,план работ,список,договор,письмо,ключ,日記,会議メモ,予算,写真一覧,報告書,你好,合同,计划,笔记,账单,"
    "보고서,일정,메모,σημειώσεις,τιμές,κατάλογος,שלום,רשימה,مرحبا,قائمة,नमस्ते,सूची,สวัสดี,გეგმა,ցուցակ,mom's list,"
    "Anna's plan,Q&A,salt+pepper,1+1,c++ notes,a=b,50% off,price$,~draft,@home,[draft] plan,data[3],(final),sum (2),x^2,"
    "under__score,double--dash,three...dots,trailing-,UPPER lower,iPhone,eBay sales,tl;dr,README.old,archive.tar,min.max,"
    "no.1,Nr. 7,v0.0.1-rc.2,1.0,2.5 beta,00,007,1984,3d,4x4,_private,__init__,-dash,Mr Smith,Dr. Who,O'Neil,50-50,24x7,ROT13,"
    "CHANGES,ABOUT,TODO,NOTES,AUTHORS,COPYING,NEWS,FAQ,VERSION,ReadMe,ToDo,HOWTO,MANIFEST,straße,notes (final),"
    "naïve plan,x86_64,Ünlü,2024-05-01,a+b,LICENSE.old,piñata,Vagrantfile,Jenkinsfile,MEMO,Minutes of May,to do,TO-DO,"
    "my notes,list of names,(draft),notes (2),plan B,plan_b,Plan-B,v3,V2,Q4,Bärenhöhle,niño,œuvre,Zoë,Łukasz,bücher"
)
_ONSETS = words("b,br,c,ch,d,dr,f,fl,g,gr,h,j,k,kl,l,m,n,p,pl,qu,r,s,sh,sk,st,t,tr,v,w,x,y,z")
_VOWELS = words("a,e,i,o,u,ai,ea,io,oo,y")
_CODAS = words(",,,l,m,n,r,s,t,x,nd,rk,sh,ck,zz")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def invented(dice: Dice) -> str:
    """A word that no language has."""
    return "".join(dice.choice(_ONSETS) + dice.choice(_VOWELS) + dice.choice(_CODAS) for _ in range(dice.choice((1, 2, 2, 2, 3))))


def code_number(dice: Dice) -> str:
    """Letters and digits without sense, as in keys and numbers of cases."""
    return "".join(dice.choice(_LETTERS) for _ in range(dice.randint(3, 8)))


def date(dice: Dice) -> str:
    """A day or a month, in one of the usual ways."""
    year, month, day = dice.randint(1998, 2027), dice.randint(1, 12), dice.randint(1, 28)
    return dice.choice(
        (
            f"{year}-{month:02}-{day:02}",
            f"{year}{month:02}{day:02}",
            f"{day:02}.{month:02}.{year}",
            f"{year}-{month:02}",
            f"{year}_{month:02}_{day:02}",
            f"{dice.choice(words('jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec'))}{day:02}",
            f"{day}-{month}-{year % 100:02}",
        )
    )


def _two_words(dice: Dice) -> str:
    first, second = dice.choice([dice.choice(NOUNS), dice.choice(_MODIFIERS)]), dice.choice(NOUNS)
    camel = dice.choice((first.capitalize(), first)) + second.capitalize()
    if dice.one_in(6):
        return dice.choice(("_", "-", " ", "")).join((first.upper(), second.capitalize(), dice.choice(NOUNS)))
    return dice.choice((f"{first}_{second}", f"{first}-{second}", f"{first} {second}", f"{first}.{second}", camel, camel))


def _camera(dice: Dice) -> str:
    return dice.choice(words("IMG_,DSC_,DSC0,PXL_,scan,Scan ,page-,frame_,take,track ")) + str(dice.randint(1, 9999)).zfill(
        dice.choice((1, 3, 4))
    )


def _versioned(dice: Dice) -> str:
    name = dice.choice([dice.choice(NOUNS), invented(dice)])
    number = f"{dice.randint(0, 9)}{dice.choice(('', f'.{dice.randint(0, 20)}'))}"
    return name + dice.choice(("_v", "-v", " v", "-", "_", "", ".")) + number


def _signed(dice: Dice) -> str:
    a, b = dice.choice(NOUNS), dice.choice([dice.choice(NOUNS), invented(dice)])
    forms = f"{a}+{b}", f"{a}&{b}", f"{a} & {b}", f"{a} ({b})", f"{a} (1)", f"{a}[{b}]", f"{a}#{dice.randint(1, 99)}", f"{a}@{b}"
    return dice.choice((*forms, f"{a}~{b}", f"{a} - {b}", f"{a}={b}", f"{a}!", f"({a}) {b}", f"{a}__{b}", f"_{a}"))


def _shaped(dice: Dice) -> str:
    name = dice.choice([dice.choice(NOUNS), invented(dice)])
    return dice.choice((name.upper(), name.capitalize(), name))


def _stem(dice: Dice) -> str:
    maker: Callable[[Dice], str] = dice.choice(
        (_two_words, _two_words, _two_words, _versioned, _camera, invented, invented, invented, code_number, _shaped, _dated)
    )
    return maker(dice)


def _dated(dice: Dice) -> str:
    name = dice.choice([dice.choice(NOUNS), invented(dice)])
    return dice.choice((f"{name}-{date(dice)}", f"{date(dice)}_{name}", f"{date(dice)} {name}", date(dice)))


def _made(count: int, maker: Callable[[Dice], str], kind: str) -> list[str]:
    # Made once, from a seed of their own, so that a test can compare all names with those of the held-out grammar.
    return [maker(Dice(f"{kind}/{number}")) for number in range(count)]


THINGS = words(
    "milk,tea,bread,call Anna,fix the login,pay rent,book flights,water plants,send invoice,test build,review code,buy stamps,"
    "feed the cat,two onions,olive oil,train at 7:40,ask Omar about the keys,blue paint,dentist on Tuesday,return the drill,"
    "six eggs,oat flakes,ring the plumber,renew the passport,fold laundry,practice scales,read chapter 4,clean the filter,"
    "rehearse on Friday,collect the parcel,mow the lawn,learn ten words,new tyres,tidy the attic,change the bulb"
)
_KEYS = words(
    "port,host,debug,timeout,theme,language,retries,color,mode,level,region,version,width,height,author,currency,limit,unit,"
    "volume,speed,locale,owner,token_ttl,max_items,cache,verbose,encoding,proxy,workers,interval"
)
_VALUES = words(
    "8080,9000,true,false,30,dark,light,en,de,3,blue,fast,info,eu,localhost,1.2.0,0,off,on,utf-8,none,12.5,high,Mara,USD,admin,"
    "weekly,250ms,#ff8800,10.0.0.7,-1,64"
)
_SUBJECTS = words(
    "the client,our neighbour,the new bridge,every student,the committee,my sister,the second batch,the invoice,the old engine,"
    "a small team,the museum,the supplier,this chapter,the night train,the landlord,the sensor,the whole village,the choir"
)
_ACTIONS = words(
    "arrives on Monday,costs 40 euros,was late again,needs a new battery,agreed to the plan,sleeps until noon,lost the keys,"
    "starts at nine,likes the blue one,has doubled since May,was painted in 1962,failed twice,will be sold,grew by 3%,"
    "is out of stock,moved to Lisbon,rose slowly,waits for an answer,closes at 18:00,is not ready yet,broke during the storm"
)


def sentence(dice: Dice) -> str:
    """A plain sentence that says nothing in particular."""
    text = f"{dice.choice(_SUBJECTS)} {dice.choice(_ACTIONS)}"
    return dice.choice((text[0].upper() + text[1:] + ".", text, text[0].upper() + text[1:]))


def pair(dice: Dice) -> str:
    """A setting as a line has it."""
    key = dice.choice([dice.choice(_KEYS), dice.choice(_KEYS), invented(dice)])
    return f"{key}{dice.choice((' = ', '=', ': '))}{value(dice)}"


def value(dice: Dice) -> str:
    """A number, a word, a code."""
    return dice.choice([dice.choice(_VALUES), str(dice.randint(0, 5000)), invented(dice), code_number(dice), dice.choice(NOUNS)])


def _line_of_prose(dice: Dice) -> str:
    kind = dice.randrange(6)
    if kind < 2:
        return sentence(dice)
    if kind == 2:
        return f"{dice.choice(('- ', '* ', '[ ] ', '[x] ', '', f'{dice.randint(1, 9)}. '))}{dice.choice(THINGS)}"
    if kind == 3:
        return f"{dice.choice(('# ', '## ', ''))}{dice.choice(NOUNS).capitalize()} {dice.choice([date(dice), invented(dice)])}"
    if kind == 4:
        return f"{dice.choice(NOUNS)} {invented(dice)} {dice.randint(2, 900)}"
    return f"{invented(dice).capitalize()} {dice.choice(_ACTIONS)}"


def _prose(dice: Dice) -> str:
    return "".join(f"{_line_of_prose(dice)}\n" for _ in range(dice.randint(1, 4)))


def _table(dice: Dice, separator: str = ",") -> str:
    columns = dice.sample(words("name,count,price,city,date,id,score,email,status,hours"), 2)
    rows = [f"{dice.choice([dice.choice(NOUNS), invented(dice)])}{separator}{value(dice)}" for _ in range(dice.randint(1, 3))]
    return "\n".join([separator.join(columns), *rows]) + "\n"


def _tabs(dice: Dice) -> str:
    return _table(dice, "\t")


def _settings(dice: Dice) -> str:
    head = f"[{dice.choice([dice.choice(NOUNS), invented(dice)])}]\n" if dice.one_in(3) else ""
    return head + "".join(f"{key} = {value(dice)}\n" for key in dice.sample(_KEYS, dice.randint(1, 3)))


def _mapping(dice: Dice) -> str:
    return "".join(f"{key}: {value(dice)}\n" for key in dice.sample(_KEYS, dice.randint(1, 3)))


def _exports(dice: Dice) -> str:
    return "".join(f"{key.upper()}={value(dice)}\n" for key in dice.sample(_KEYS, dice.randint(1, 3)))


def _object(dice: Dice) -> str:
    found: dict[str, object] = {key: value(dice) for key in dice.sample(_KEYS, dice.randint(1, 2))}
    if dice.one_in(3):
        found[invented(dice)] = dice.choice((dice.randint(0, 99), True, [dice.randint(1, 9), dice.randint(1, 9)], None))
    return json.dumps(found, indent=dice.choice((None, None, 2)), ensure_ascii=False) + "\n"


def _python(dice: Dice) -> str:
    name, number = invented(dice), dice.randint(0, 99)
    forms = f"def {name}():\n    return {number}\n", f"print('{dice.choice(THINGS)}')\n", f"{name.upper()} = {number}\n"
    return dice.choice((*forms, f"import {name}\n\nx = {name}.load({number})\n", f"for i in range({number}):\n    {name}(i)\n"))


def _script(dice: Dice) -> str:
    name, number = invented(dice), dice.randint(0, 99)
    forms = f"const {name} = {number};\n", f"function {name}() {{\n  return {number};\n}}\n", f"let {name} = '{value(dice)}';\n"
    return dice.choice((*forms, f"// {sentence(dice)}\n{name}({number});\n", f"if ({name} > {number}) {{ stop(); }}\n"))


def _shell(dice: Dice) -> str:
    name = invented(dice)
    return dice.choice((f"#!/bin/sh\necho {value(dice)}\n", f"export {name.upper()}={value(dice)}\n", f"cd {name}\n"))


def _log(dice: Dice) -> str:
    def line() -> str:
        clock = f"{dice.randint(0, 23):02}:{dice.randint(0, 59):02}:{dice.randint(0, 59):02}"
        level = dice.choice(words("INFO,WARN,ERROR,DEBUG"))
        message = dice.choice([sentence(dice), pair(dice), invented(dice)])
        return f"{dice.choice((f'{date(dice)} ', ''))}{clock} {level} {message}\n"

    return "".join(line() for _ in range(dice.randint(1, 3)))


def _markup(dice: Dice) -> str:
    tag = dice.choice(words("p,h1,b,li,item,title,name,note"))
    return "".join(f"<{tag}>{dice.choice([sentence(dice), value(dice)])}</{tag}>\n" for _ in range(dice.randint(1, 2)))


def _style(dice: Dice) -> str:
    return f".{invented(dice)} {{ {dice.choice(('color', 'margin', 'width'))}: {value(dice)}; }}\n"


def _query(dice: Dice) -> str:
    return f"SELECT {dice.choice(_KEYS)} FROM {dice.choice(NOUNS)} WHERE id = {dice.randint(1, 900)};\n"


def _latex(dice: Dice) -> str:
    return f"\\section{{{dice.choice(NOUNS).capitalize()}}}\n{sentence(dice)}\n"


def _card(dice: Dice) -> str:
    return f"BEGIN:VCARD\nFN:{invented(dice).capitalize()}\nTEL:{dice.randint(10000, 99999)}\nEND:VCARD\n"


def _subtitle(dice: Dice) -> str:
    return f"1\n00:00:0{dice.randint(1, 4)} --> 00:00:0{dice.randint(5, 9)}\n{sentence(dice)}\n"


def _difference(dice: Dice) -> str:
    return f"-{pair(dice)}\n+{pair(dice)}\n"


_KINDS: dict[Callable[[Dice], str], str] = {
    _prose: "txt,md,,rst,org,bak,eml,adoc,dat,lst,nfo,rtf,text,old,note",
    _table: "csv",
    _tabs: "tsv",
    _object: "json,geojson,ipynb,jsonl",
    _python: "py,rb,jl",
    _settings: "ini,toml,cfg,conf,properties,service,desktop",
    _mapping: "yaml,yml,po",
    _exports: "env",
    _log: "log,out",
    _script: "js,ts,java,c,cpp,h,go,rs,php,kt,cs,lua,swift,scala,dart,r",
    _shell: "sh,bat,ps1",
    _markup: "html,xml,vue",
    _style: "css,scss",
    _query: "sql",
    _latex: "tex",
    _card: "vcf",
    _subtitle: "srt",
    _difference: "diff,patch",
}
_BY_EXTENSION = {extension: kind for kind, extensions in _KINDS.items() for extension in words(extensions)}
STEMS = [name for name in [*NOUNS, *_made(4000, _stem, "stem")] if name not in FOLDERS]

WORDS = Vocabulary(
    folders=FOLDERS,
    stems=sorted(set(STEMS)),
    kinds=_BY_EXTENSION,
    media=words(
        "png,jpg,mp3,gif,wav,webp,jpeg,bmp,ogg,flac,svg,png,jpg,mp3,PNG,JPG,heic,HEIC,avif,ico,m4a,aac,opus,aiff,JPEG,"
        "tif,tiff,TIFF,jfif,jp2,tga,pcx,mid,aif,amr,wma"
    ),
    odd_stems=sorted(set(_ODD) | set(_made(150, _signed, "signed"))),
    bare=8,
)


def content(dice: Dice) -> str:
    """What is to be written into a file, mostly short."""
    made = dice.choice(
        (
            lambda: dice.choice(THINGS),
            lambda: f"{dice.choice(THINGS)} and {dice.choice(THINGS)}",
            lambda: ", ".join(dice.sample(THINGS, 3)),
            lambda: sentence(dice),
            lambda: sentence(dice),
            lambda: f"{sentence(dice)} {sentence(dice)}",
            lambda: pair(dice),
            lambda: json.dumps({dice.choice(_KEYS): value(dice)}),
            lambda: f"# {dice.choice(NOUNS)} {invented(dice)}",
            lambda: f"{dice.choice(NOUNS)}\n{invented(dice)}",
            lambda: f"- {dice.choice(THINGS)}\n- {dice.choice(THINGS)}",
            lambda: f"print({dice.randint(1, 99)})",
            lambda: f"Hello {dice.choice([dice.choice(NOUNS), invented(dice)])}!",
            lambda: value(dice),
            lambda: " ".join(invented(dice) for _ in range(dice.randint(2, 5))),
            lambda: " ".join(dice.sample(NOUNS, dice.randint(1, 6))),
            lambda: ", ".join(dice.sample(NOUNS, dice.randint(2, 5))),
            lambda: f"{dice.choice(NOUNS)}: {dice.choice([value(dice), dice.choice(THINGS), date(dice)])}",
            lambda: f"{dice.choice(NOUNS)} at {dice.randint(0, 23)}:{dice.randint(0, 59):02} with {invented(dice)}",
            lambda: f"{dice.randint(1, 99)} {dice.choice(NOUNS)}, {dice.randint(1, 99)} {dice.choice(NOUNS)}",
            lambda: str(dice.choice((dice.randint(0, 10**6), round(dice.uniform(0, 999), 2), date(dice)))),
            lambda: f"{dice.choice(NOUNS)}@{invented(dice)}.org",
            lambda: f"1. {dice.choice(THINGS)}\n2. {dice.choice(THINGS)}\n3. {sentence(dice)}",
            lambda: f"Dear {invented(dice).capitalize()}, {sentence(dice)}",
            lambda: _BY_EXTENSION[dice.choice(list(_BY_EXTENSION))](dice).strip(),
            lambda: f'{invented(dice)} said "{dice.choice(THINGS)}"',
            lambda: f"C:\\{invented(dice)}\\{dice.choice(NOUNS)}",
            lambda: dice.choice(_ODD),
            lambda: f"{dice.choice(NOUNS)} → {invented(dice)} ✓",
        )
    )()  # fmt: skip
    return made


def replacement(dice: Dice) -> str:
    """What comes in place of a piece of text."""
    return dice.choice(
        [
            dice.choice(THINGS),
            dice.choice(NOUNS),
            " ".join(dice.sample(NOUNS, 2)),
            f"{dice.choice(NOUNS)}: {value(dice)}",
            value(dice),
            value(dice),
            invented(dice),
            sentence(dice),
            pair(dice),
            date(dice),
            dice.choice(_ODD),
            f'"{invented(dice)}"',
            f"{invented(dice)}\\{invented(dice)}",
        ]
    )
