"""Owns the numbers of `--concurrency auto`, each with its reason; docs/decisions/0003 tells what was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoPolicy:
    """How the controller climbs, holds, probes and paces. Shares are of the rate that is compared with."""

    # --- epochs -------------------------------------------------------------------------------------------------------

    #: completions in an epoch while climbing, at least; a doubling that helps is seen in few
    climb_epoch_completions: int = 16
    #: completions in the very first; whatever it says, a doubling is tried
    first_epoch_completions: int = 8
    #: completions in an epoch afterwards, at least; answers of very unequal length need this many for a 5 % decision
    steady_epoch_completions: int = 64
    #: … and rounds of L completions; by Little's law a part of a round would do, but the calls of a change linger
    climb_epoch_rounds: int = 2
    steady_epoch_rounds: int = 4
    #: an epoch in which in-flight was on average below this share of the limit says nothing about the limit
    filled_share: float = 0.9
    #: such epochs in a row that end a trial: more slots than there is work for
    void_epochs_before_settling: int = 3

    # --- climbing -----------------------------------------------------------------------------------------------------

    #: a doubling that gains this much is followed by another; 1.20 stopped at 0.80 of the best on a server that
    #: saturates slowly, and one doubling too many costs one trial
    climb_gain: float = 1.10
    #: a level that gains this much over the one below is kept
    keep_gain: float = 1.05
    #: a doubling that gains this much is believed after one round: at 64 slots it saves a third of the climb
    early_gain: float = 1.5
    #: … of at least this many completions
    early_completions: int = 8
    #: a doubling that loses this much has passed a peak, so the level halfway is tried
    past_peak_gain: float = 0.95
    #: halving goes on while this share of the starting rate is kept
    descend_kept: float = 0.90

    # --- holding ------------------------------------------------------------------------------------------------------

    #: epochs before the first probe at a new level; a climb or a descent may have been misled by a few long answers
    epochs_before_first_probe: int = 2
    #: epochs between two probes, doubled while neither direction helps: a probe into a collapse is dear
    epochs_between_probes: int = 6
    most_epochs_between_probes: int = 24
    probe_up: float = 1.25
    probe_down: float = 0.80
    #: a probe downward is kept at this share …
    down_kept: float = 0.98
    #: … as long as all of them since the last gain cost no more than this; 2 % each time would add up without end
    down_kept_together: float = 0.96
    #: an upward probe that gains this share of what it added says that the server has room: climb again
    room_share: float = 0.6
    #: a trial that runs this badly ends before its epoch does
    abandon_gain: float = 0.7
    #: … once this many completions say so
    abandon_completions: int = 24
    #: … or at once, if even the completions of the change itself come this slowly, and are this many
    collapse_gain: float = 0.5
    collapse_completions: int = 16
    #: an epoch this far from the others means that the server has changed: forget them, probe now
    sank_gain: float = 0.75
    rose_gain: float = 1.35

    # --- timeouts -----------------------------------------------------------------------------------------------------

    #: timeouts in one epoch that cut the limit …
    timeouts: int = 2
    #: … if they are this share of what came back; a steady one per cent, whatever the load, must not drive it to 1
    timeout_share: float = 0.05
    timeout_cut: float = 0.7

    # --- pacing -------------------------------------------------------------------------------------------------------

    #: the pace after a second wave of refusals, as a share of what was accepted from the first to the second
    first_cut: float = 0.95
    #: while all is refused from the first wave on, the pace falls to this share of what was taken before it; 1 cost
    #: 2.2 % refused instead of 1.4 where refused calls use up a quota of ten seconds, 1/4 no less
    unknown_least: float = 0.5
    #: the pace after a later refusal, as a share of the last rate that went well
    later_cut: float = 0.97
    #: … or of the refused pace itself, where none has gone well since the cut before
    repeated_cut: float = 0.7
    #: the pace returns quickly to this share of the lowest pace known to be refused, and rests there
    ceiling_share: float = 0.96
    #: so many cuts among so few calls under a pace, and the refusals do not depend on it; a right pace has one in a
    #: hundred. One call in ten refused at random, whatever the pace, brought a run down to two calls a second
    unmoved_cuts: int = 5
    unmoved_share: float = 0.04
    unmoved_memory_calls: int = 500
    #: … and the pace has come down to this share. The way down to a right pace of 2/s has as many cuts, but comes down
    #: by a third; without this, 38 calls in a hundred were refused by a bucket of 2/s
    unmoved_fall: float = 0.6
    #: then the pace is forgotten, and refusals teach nothing, for this long
    unmoved_rest_s: float = 60.0
    #: growth below that share, or without any refused pace known, for each clean `recover_s`; doubling after a first
    #: wave had more than 1 % refused by a bucket of 2/s in 9 of 20 runs
    recover_gain: float = 1.25
    recover_s: float = 4.0
    #: growth instead, while there was one wave only and a clean time had so many calls; without it, the ten seconds
    #: after a minute of 429 had 0.56 of the full rate. Quotas of 2/s and 10/s never have so many
    wave_gain: float = 2.0
    wave_many_calls: int = 50
    #: growth beyond it for each clean `clean_s`
    careful_gain: float = 1.03
    clean_s: float = 10.0
    #: rest at the ceiling before trying to pass it; doubled with each failure. At 2 requests/s with 1 % of refusals
    #: allowed, there is one refusal to spend in 50 s
    rest_s: float = 60.0
    longest_rest_s: float = 600.0
    #: a pace this far beyond the refused one that went well makes that one history; growth then starts over with
    #: `careful_gain`, and squares each time up to `recover_gain`
    forget_gain: float = 1.05
    #: successes that a clean time must show, and the share of the pace that they must reach: an unused pace proves
    #: nothing
    clean_completions: int = 3
    used_share: float = 0.7
    #: the rate before the first refusal is measured over this long
    measure_s: float = 4.0
    #: one call in this long, at the least, so that there is always something to learn from
    slowest_interval_s: float = 10.0

    # --- stray refusals -----------------------------------------------------------------------------------------------

    #: refusals up to this share of the calls accepted lately are strays: each holds back its own call only
    stray_share: float = 0.03
    #: … where a quota is known: its pace may be a little too high, and up to 1.9 calls in a hundred were refused so
    stray_share_of_quota: float = 0.01
    #: … where so many calls were accepted lately: a quota of 10 calls a second must not look like many calls
    stray_least_accepted: int = 100
    #: lately is the present span and the one before it
    stray_span_s: float = 5.0
    #: a refusal of a pace that has just been raised is a stray only if there was one within this time
    stray_memory_s: float = 60.0
    #: an endpoint that asks for a longer wait means everybody
    stray_longest_wait_s: float = 30.0

    # --- record -------------------------------------------------------------------------------------------------------

    #: changes remembered; the oldest are forgotten
    history: int = 256
