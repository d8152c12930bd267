"""Owns the sentences that synthetic narratives are put together from. Invented; they describe nobody and no method.

Fields: `age`, `person` (man, woman), `subj`/`Subj`, `obj`, `poss`/`Poss`, `partner` (wife, boyfriend, ...), `home`,
`a_home` (with its article), `finder`, `finder_cap`, `hour`, `minute`, `n` (2 to 9), `month`, `kin`.
"""

from __future__ import annotations

CME_OPENINGS = (
    "The victim was a {age}-year-old {person} who died by suicide at {poss} {home}.",
    "This {age}-year-old {person} was found unresponsive in {poss} {home}; the manner of death was ruled suicide.",
    "The decedent is a {age}-year-old {person} whose death was investigated as a suicide.",
    "V was a {age}-year-old {person} last known to be alive the evening before {subj} was found at {poss} {home}.",
    "A {age}-year-old {person} died of a self-inflicted injury; the death was certified as a suicide in {month}.",
    "The office was notified in {month} of the death of a {age}-year-old {person} at {poss} {home}.",
)

LE_OPENINGS = (
    "Officers were dispatched to {a_home} at {hour}:{minute} hours for a welfare check on a {age}-year-old {person}.",
    "On arrival deputies met {finder}, who reported that the victim, a {age}-year-old {person}, was not responding.",
    "Police responded to a call from {finder} about a {age}-year-old {person} who had not been heard from.",
    "At {hour}:{minute} hours patrol was sent to {a_home} where a {age}-year-old {person} had been found deceased.",
    "The reporting officer was assigned to assist the medical examiner with the death of a {age}-year-old {person}.",
    "Dispatch received a call at {hour}:{minute} hours from {finder}, who asked officers to check on the victim.",
)

CME_DISCOVERY = (
    "{Subj} was discovered by {finder}, who called emergency services.",
    "{Poss} {kin} had spoken with {obj} {n} hours earlier and noticed nothing unusual.",
    "Emergency medical personnel responded and pronounced death at the scene.",
    "The victim was last seen by {finder} on the previous day.",
)

LE_DISCOVERY = (
    "Officers entered with a key that {finder} provided and found the victim deceased.",
    "The scene was secured and the medical examiner was notified.",
    "There were no signs of forced entry and nothing in the {home} appeared to be disturbed.",
    "{finder_cap} told officers that {subj} had last answered a message {n} hours before the call.",
    "Officers canvassed the area; neighbors had not heard or seen anything.",
)

# One entry a circumstance; a narrative takes several of them.
CIRCUMSTANCES = {
    "health": (
        "{Subj} had been living with chronic pain for {n} years and had told {poss} {kin} that {subj} was tired of it.",
        "{Poss} medical history included heart disease, diabetes, and a recent hospital stay.",
        "{Subj} had received a serious diagnosis in {month} and had been told that treatment would be difficult.",
        "{Poss} {kin} reported that {poss} health had declined and that {subj} could no longer drive.",
        "Several prescribed medications, all taken as directed, were noted at the scene.",
    ),
    "job": (
        "{Subj} had lost {poss} job {n} weeks before and had been looking for work without success.",
        "{Poss} hours had been cut in {month} and {subj} worried about the rent.",
        "A former supervisor said that {subj} had taken the closing of the plant very hard.",
        "{Subj} had recently been told that {poss} position would end.",
    ),
    "money": (
        "{Subj} had received notice of foreclosure in {month}.",
        "{Poss} {kin} said that debts had been building for {n} years and that {subj} had hidden the letters.",
        "Unopened bills and a notice from the bank lay on the kitchen table.",
    ),
    "grief": (
        "{Poss} mother had died {n} months earlier and {subj} had not been the same since.",
        "The anniversary of {poss} son's death was that week.",
        "{Subj} had spoken of wanting to be with a late friend, whom {subj} had known since school.",
        "{Poss} {kin} described {obj} as withdrawn since the funeral in {month}.",
    ),
    "substance": (
        "{Subj} had a history of alcohol use and had relapsed after {n} months of sobriety.",
        "{Poss} {kin} stated that {subj} had been drinking more heavily in recent weeks.",
        "{Subj} had left a treatment program in {month} against advice.",
        "Empty bottles were noted in the {home}, and {subj} was known to drink when upset.",
    ),
    "mental": (
        "{Subj} had been treated for depression for {n} years and had recently stopped taking the medication.",
        "{Poss} {kin} said that {subj} had spoken of suicide before but had no known attempts.",
        "{Subj} was seen by a counselor in {month}; a follow-up visit was scheduled and not kept.",
        "{Subj} had been diagnosed with bipolar disorder as a young adult.",
        "Friends noticed that {subj} had become quiet and slept little.",
    ),
    "argument": (
        "{Subj} and {poss} {partner} had argued about money that evening; it was verbal only and nobody was touched.",
        "{Poss} {partner} said that they had disagreed by phone and that {subj} hung up.",
        "The couple had agreed in {month} to separate and both described the decision as calm.",
        "{Poss} {partner} had moved out {n} weeks before; there had never been any violence between them.",
        "There had been an argument with a neighbor about a fence on the day before.",
    ),
    "legal": (
        "{Subj} was to appear in court in {month} for a traffic matter and feared losing {poss} license.",
        "{Subj} had been served with papers in a dispute over {poss} father's estate.",
        "A hearing about unpaid taxes was set for the following week.",
    ),
    "lonely": (
        "{Subj} lived alone and had few visitors since moving to the area {n} years ago.",
        "{Poss} {kin} lived in another state and spoke with {obj} about once a month.",
        "Neighbors described {obj} as polite and as keeping to {obj}self.",
    ),
}

# Violence by or against somebody other than a partner, and phrases of the keyword rule in another sense.
HARD_NEGATIVES = (
    "As a child {subj} had been physically abused by {poss} father, which {subj} discussed in counseling.",
    "{Poss} cousin held a restraining order against a former landlord; the victim was not a party to it.",
    "{Subj} had volunteered for {n} years at a domestic violence shelter and was well liked there.",
    "A coworker had been accused of stalking a customer, and the victim was asked to be a witness.",
    "{Poss} {kin} recalled that {subj} had choked on food {n} weeks earlier and disliked eating alone since.",
    "{Poss} stepfather had beaten {obj} throughout {poss} school years, and {subj} left home early.",
    "{Subj} had been in a fist fight with a brother over the sale of the family farm.",
    "{Poss} mother had been hurt by {poss} father for years, and {subj} grew up with relatives.",
    "{Subj} had been robbed and injured by strangers in {month} and rarely went out afterwards.",
    "{Subj} had pushed {poss} adult nephew during a quarrel about the car; police were not called.",
)

# A partner hurt or threatened by the victim; keyed by the victim's sex.
VIOLENCE_BY_VICTIM = {
    "m": (
        "{Poss} {partner} reported that {subj} had choked her during an argument {n} days before.",
        "He had been arrested in {month} on a charge of domestic violence after his {partner} called for help.",
        "His {partner} had obtained a protective order against him {n} weeks before the death.",
        "Records show that he assaulted his {partner} in {month} and was ordered to stay away from her.",
        "Their daughter said that he struck his {partner} in front of the children that afternoon.",
        "His {partner} had ended the relationship, after which he was stalking her at work.",
        "He had sent his {partner} messages in which he threatened to kill her if she did not come back.",
        "A no-contact order was in effect between him and his {partner}.",
    ),
    "f": (
        "Her {partner} told investigators that she had hit her partner with a lamp during an argument that night.",
        "She had been charged with domestic violence in {month} after her {partner} was treated for injuries.",
        "Her {partner} held a restraining order against her that was issued {n} weeks earlier.",
        "A neighbor said that she had been physically abusive toward her {partner} for years.",
    ),
}

# The victim hurt or threatened by a partner.
VIOLENCE_AGAINST_VICTIM = {
    "m": (
        "{Subj} had been physically abused by {poss} {partner}, according to {poss} {kin}.",
        "{Subj} had asked for a protective order against {poss} {partner} in {month}.",
        "Police had been called {n} times for domestic violence in which the {partner} was the aggressor.",
    ),
    "f": (
        "{Poss} {kin} said that {subj} had been physically abused by {poss} {partner} for {n} years.",
        "{Subj} had been granted a protective order against {poss} {partner} in {month}.",
        "{Subj} had told a friend that {poss} {partner} choked her and threatened to kill her.",
        "{Poss} {partner}, from whom {subj} was separated, had been stalking {obj} since {month}.",
        "Officers had responded to the address {n} times for domestic violence before the {partner} moved out.",
    ),
}

# Violence between partners in words that the keyword rule does not know.
INDIRECT_VIOLENCE = (
    "{Poss} {partner} had bruises on both arms and said that things at home had become physical more than once.",
    "{Poss} {kin} had seen {poss} {partner} with a black eye in {month} and was told not to ask about it.",
    "{Poss} {partner} had fled to relatives with the children {n} days before, afraid of what might happen at home.",
    "{Subj} had told a nurse that {subj} was not safe at home because of {poss} {partner}, who would shove {obj}.",
    "{Poss} {partner} did not allow {obj} to leave the house or to use the phone and slapped {obj} when {subj} did.",
    "Earlier that night the {partner} ran to a neighbor, who saw marks on the neck and called the police.",
)

# Of each group one sentence is told at most.
CME_EITHER_OR = (
    ("A note was found in which {subj} apologized to {poss} family.", "No note was found."),
    (
        "Toxicology results were pending when this summary was written.",
        "Toxicology showed only medications in therapeutic amounts.",
        "Toxicology was not requested.",
    ),
)
LE_EITHER_OR = (("A handwritten note was collected as evidence.", "Officers did not find a note."),)

CME_BACKGROUND = (
    "{Subj} had left written instructions for the care of {poss} dog.",
    "The examination showed no injuries other than the one that caused the death.",
    "An external examination was performed, and no autopsy was requested.",
    "{Poss} {kin} identified the body and was offered the number of a support line.",
    "{Subj} kept a garden and was often seen working in it.",
    "{Subj} had served in the military for {n} years.",
    "{Subj} was a member of a local church and sang in its choir.",
    "{Poss} primary care physician was contacted and provided records.",
    "The time of death could be narrowed to a span of {n} hours.",
    "No known history of attempts was reported by the family.",
    "{Poss} {kin} thought that {subj} had seemed better during the week before.",
    "Personal property was returned to the family in {month}.",
    "{Subj} had given away some belongings in {month}, which {poss} {kin} understood only later.",
    "The family asked that {poss} physician be informed by the office.",
    "{Subj} had graduated from a local school and had lived in the county for most of {poss} life.",
    "The cause and manner of death were certified after a review of all records.",
)

LE_BACKGROUND = (
    "{Poss} phone was collected; the last message was sent to {poss} {kin}.",
    "The door had been locked from the inside.",
    "Photographs were taken and the scene was released at {hour}:{minute} hours.",
    "{Poss} {kin} was notified in person by two officers and a chaplain.",
    "The detective found no indication that another person had been present.",
    "The responding officers remained until the body had been removed.",
    "The vehicle in the driveway was registered to the victim.",
    "A statement was taken from {finder}, who was cooperative.",
    "A neighbor had seen the victim walk the dog on the previous afternoon.",
    "Video from a door camera across the street was reviewed and showed nobody else.",
    "{Poss} {kin} said that {subj} had made a remark about not being around much longer.",
    "The mail had not been taken in for {n} days.",
    "A dog at the {home} was taken in by a neighbor.",
    "A records check was completed and added to the file.",
    "{finder_cap} stated that {subj} had been in good spirits at dinner.",
    "The on-call detective and the medical examiner's investigator agreed on the findings.",
    "The case was closed in {month} as a suicide.",
    "{Poss} {home} was described as clean and orderly.",
)

HOMES = ("residence", "apartment", "house", "mobile home", "rented room", "farmhouse", "townhouse")
FINDERS = ("a neighbor", "a friend", "a relative", "a roommate", "a coworker", "the landlord", "a home health aide")
KIN = ("sister", "brother", "cousin", "niece", "nephew", "sister-in-law", "best friend")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
PARTNERS = {"m": ("wife", "girlfriend", "ex-wife"), "f": ("husband", "boyfriend", "ex-husband")}

PLACEHOLDERS = (
    "No report available.",
    "No LE report available.",
    "No CME report available.",
    "Report not available at time of abstraction.",
)
