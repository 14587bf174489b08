"""Secure sums: the centre learns what the hospitals' vectors add up to, and nothing of any one.

The protocol is that of Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving
machine learning" (CCS), on the complete graph (Bell et al. 2020 thin the graph out for thousands of
clients; a consortium has ten), with keys that serve a whole session. An auditor reads the
files of this folder in this order; `packing` says what stands where in the vector of a model.

`identities`
    Every hospital has a signing key (Ed25519) of its own, and a list of the fingerprints of its
    peers, exchanged by people and not by the centre. It signs the agreement key (X25519) it makes
    for a session together with the study, the first round and the names and fingerprints of all who
    take part, so that the centre cannot sit between two hospitals or invent a third.
`quantise`
    Real numbers become whole multiples of a step, which add exactly modulo 2^32 or 2^64.
`masks`
    Two hospitals u and v derive a common seed from their agreement; one adds the stream of numbers
    it stands for, the other subtracts it. On top each adds a stream of its own. What is sent ::

        y_u = x_u + stream(b_u) + sum_{v > u} stream(k_uv) - sum_{v < u} stream(k_uv)   (mod 2^w)

    is uniform to whoever lacks one of those seeds.
`shares`
    The seeds b_u and k_uv of a round are split among all hospitals (Shamir 1979), any ``t`` of
    which can restore one, and travel encrypted through the centre with the masked vector.
`rules`
    What a hospital demands before it masks, and before it helps to take masks off.
`rounds`
    The three steps of a round, made of these pieces.

**Messages.** One exchange opens a session (a stage of a study): keys. Then two a round: the masked
vector with the shares, and the shares back. Bonawitz needs four a round because there the key of a
hospital that dropped out is restored, after which it cannot be used again. Here it is the seed of
one round and one pair that is restored, from the shares of the partner that did send: HKDF with the
round in its context gives an independent seed for every round, so that a restored one tells nothing
of another round, and the agreement key itself is never shared. What this gives up is forward
secrecy within a session: who steals a hospital's session key and has kept the centre's transcript
can take off that session's pairwise masks (not the self masks, whose seeds are drawn anew each
round and kept nowhere). Keys of older sessions are deleted.

**What everybody masked must be the same question.** The context that seeds are derived from holds
the hash of the whole request, model included. A centre that sends unlike models, so that only one
hospital's update is not zero (Pasquini et al. 2022, "Eluding secure aggregation in federated
learning via model inconsistency", CCS), gets masks that do not cancel.

**Against whom.** The centre may be curious, and it may lie: about keys, about who takes part, about
who dropped out, to each hospital differently. It may have up to ``c`` hospitals on its side. See
`rules.smallest_group` for what ``t`` of ``n`` then guarantees. Nothing here protects a sum from
being wrong: a hospital can send nonsense, and the centre can no longer see which. So whatever must
hold of one hospital's vector (finite, within its range, of bounded norm) is checked at the hospital
before it is masked; rules that look at each update (medians, Krum, SCAFFOLD's variates) exclude
secure sums. And a sum is still an answer: what sums of many questions tell, and what differences of
sums over different hospitals tell, is for differential privacy (`privacy.updates`).
"""
