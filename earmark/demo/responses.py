"""What households do after an advertisement, and without one: conversions, and the rows that report them.

The effect of every campaign is planted here, so this module knows which conversion had which cause; the rows
do not say it.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypeAlias

import numpy as np

from earmark.demo.catalog import Campaign, Tenant
from earmark.demo.listening import (
    DAY_SECONDS,
    Bools,
    Columns,
    Floats,
    Homes,
    Ints,
    Listening,
    local_seconds,
    mix,
)
from earmark.demo.truth import CampaignTruth
from earmark.demo.user_agents import browsers

Value: TypeAlias = str | bool | dict[str, str]
Row: TypeAlias = dict[str, Value]

BASELINE: Final = -1
CARRIER_ADDRESSES: Final = 64
DEVICE_OF_BUYER: Final = 2**40  # a device that no listener has: a household buys with another


@dataclass(frozen=True, slots=True)
class Response:
    """One row of ``attribution_events``; ``client`` is what its address is made of, None without an address.

    ``client`` is (home, None) for a device of the household, (home, n) for address n of the mobile carriers.
    """

    t: int
    row: Row
    client: tuple[int, int | None] | None

    @property
    def by_pixel(self) -> bool:
        """Whether a browser reported it, rather than the sponsor's shop."""
        return self.row["type"] in {"pixel", "vanity_url"}


@dataclass(frozen=True, slots=True)
class Responses:
    """The rows in the order of time and, for each campaign, what was planted."""

    rows: list[Response]
    campaigns: tuple[CampaignTruth, ...]


def respond(tenant: Tenant, listening: Listening, start: date, days: int, rng: np.random.Generator) -> Responses:
    """Draw all responses of a tenant's households in ``days`` days from ``start`` on."""
    opens = int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp())
    closes = opens + days * DAY_SECONDS
    rows: list[Response] = []
    truths: dict[int, CampaignTruth] = {}
    for number in range(len(tenant.sponsors)):
        conversions = _conversions(tenant, number, listening, (opens, closes), rng)
        sponsor = _SponsorRows(tenant, number, listening.homes, (opens, closes), rng)
        sponsor.convert(conversions)
        sponsor.browse()
        for place, campaign in enumerate(tenant.campaigns):
            if campaign.sponsor != number:
                continue
            exposures = _of_campaign(listening.exposures, place)
            sponsor.visit(place, exposures)
            truths[place] = _truth(tenant, place, exposures, conversions, sponsor)
        rows.extend(sponsor.rows)
    rows.sort(key=lambda response: (response.t, str(response.row["event_id"])))
    return Responses(rows, tuple(truths[place] for place in sorted(truths)))


def _of_campaign(exposures: Columns, campaign: int) -> Columns:
    chosen = exposures["campaign"] == campaign
    return {name: column[chosen] for name, column in exposures.items()}


# ------------------------------------------------------------------------------------------------ conversions


def _conversions(
    tenant: Tenant,
    number: int,
    listening: Listening,
    period: tuple[int, int],
    rng: np.random.Generator,
) -> Columns:
    """Draw a sponsor's conversions, in the order of time: t, home, campaign (or baseline), order, seen, action.

    ``seen`` is the time of the exposure that caused it, ``action`` indexes the sponsor's actions.
    """
    sponsor = tenant.sponsors[number]
    tables = [_baseline(sponsor.rate, listening.homes, period, rng)]
    for place, campaign in enumerate(tenant.campaigns):
        if campaign.sponsor == number:
            tables.append(_incremental(campaign, _of_campaign(listening.exposures, place), rng))
    made = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    kept = np.flatnonzero(made["t"] < period[1] - 60)  # their last row comes within a minute
    kept = kept[np.lexsort((made["home"][kept], made["t"][kept]))]
    made = {name: column[kept] for name, column in made.items()}
    second = 0.07 if sponsor.actions[0] == "purchase" else 0.4
    made["action"] = ((rng.random(len(kept)) < second) & (len(sponsor.actions) > 1)).astype(np.int64)
    return made


def _baseline(rate: float, homes: Homes, period: tuple[int, int], rng: np.random.Generator) -> Columns:
    """Draw what happens without ads: every household alike, by its local clock."""
    days = (period[1] - period[0]) // DAY_SECONDS
    count = int(rng.poisson(rate * homes.households * days / 30))
    home = rng.integers(0, homes.households, size=count)
    t = period[0] + rng.integers(0, days, size=count) * DAY_SECONDS
    return {
        "t": t + local_seconds(homes.country[home], rng),
        "home": home,
        "campaign": np.full(count, BASELINE, dtype=np.int64),
        "order": np.full(count, -1, dtype=np.int64),
        "seen": np.zeros(count, dtype=np.int64),
    }


def _delays(count: int, rng: np.random.Generator) -> Ints:
    """Draw seconds from exposure to conversion: 29 hours in the median, one in 25 a month or more."""
    days = rng.lognormal(np.log(1.2), 1.3, size=count)
    late = rng.random(count) < 0.03
    return (np.where(late, rng.uniform(30.5, 45.0, size=count), days) * DAY_SECONDS).astype(np.int64)


def _incremental(campaign: Campaign, exposures: Columns, rng: np.random.Generator) -> Columns:
    """Draw what the ads cause: each exposure independently, with the campaign's probability."""
    caused = rng.random(len(exposures["t"])) < campaign.lift
    seen = exposures["t"][caused]
    number = exposures["campaign"][caused]
    return {
        "t": seen + 60 + _delays(len(seen), rng),
        "home": exposures["home"][caused],
        "campaign": number,
        "order": exposures["order"][caused],
        "seen": seen,
    }


def _follows(exposures: Columns, t: Ints, home: Ints, lookback_days: float) -> Bools:
    """Say which of the times lie within the lookback after an exposure of the same household."""
    if not len(exposures["t"]):
        return np.zeros(len(t), dtype=np.bool_)
    big = 2**34  # more than any time in seconds until the year 2514
    known = np.sort(exposures["home"] * big + exposures["t"])
    place = np.searchsorted(known, home * big + t, side="right") - 1
    last = known[np.maximum(place, 0)]
    age = t - last % big
    follows: Bools = (place >= 0) & (last // big == home) & (age <= lookback_days * DAY_SECONDS)
    return follows


# ------------------------------------------------------------------------------------------------------- rows


class _SponsorRows:
    """The rows that report one sponsor's conversions and visits."""

    def __init__(
        self,
        tenant: Tenant,
        number: int,
        homes: Homes,
        period: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self.tenant = tenant
        self.number = number
        self.sponsor = tenant.sponsors[number]
        self.homes = homes
        self.opens, self.closes = period
        self.rng = rng
        self.rows: list[Response] = []
        self.agents = browsers()
        self.campaigns = [place for place, campaign in enumerate(tenant.campaigns) if campaign.sponsor == number]
        # Of each campaign: orders with its code, those that the pixel reports too, and incremental revenue.
        self.promo_orders = dict.fromkeys(self.campaigns, 0)
        self.promo_and_pixel = dict.fromkeys(self.campaigns, 0)
        self.revenue = dict.fromkeys(self.campaigns, 0.0)
        self._salt = int(rng.integers(2**62))
        self._agent_of_home = rng.integers(0, len(self.agents), size=homes.households)

    def convert(self, conversions: Columns) -> None:
        """Report the conversions: by pixel, promo code, survey, or offline; often by several at once."""
        count = len(conversions["t"])
        chance = self.rng.random((count, 9))
        values = np.round(self.sponsor.basket * self.rng.lognormal(-0.125, 0.5, size=count), 2) * (
            chance[:, 0] >= 0.03
        )
        emails = self._emails(conversions["home"])
        customers: set[int] = set()
        for place in range(count):
            home = int(conversions["home"][place])
            new = home not in customers and bool(chance[place, 1] < 0.75)
            customers.add(home)
            self._convert(
                t=int(conversions["t"][place]),
                home=home,
                campaign=int(conversions["campaign"][place]),
                order=int(conversions["order"][place]),
                action=self.sponsor.actions[int(conversions["action"][place])],
                number=f"{self.sponsor.sponsor_id[3:6].upper()}-{100_001 + place}",
                value=float(values[place]),
                email=emails[place],
                new=new,
                chance=chance[place],
            )

    def _convert(
        self,
        *,
        t: int,
        home: int,
        campaign: int,
        order: int,
        action: str,
        number: str,
        value: float,
        email: str,
        new: bool,
        chance: Floats,
    ) -> None:
        sold = action in {"purchase", "offline_purchase"}
        facts: Row = {"action": action, "hashed_email": email, "is_new_customer": new}
        if action != "lead":
            facts["order_number"] = number
        if sold:
            facts |= {"value": f"{value:.2f}", "currency": "USD"}
            if campaign != BASELINE:
                self.revenue[campaign] += value
        away = int(chance[2] * 1000) % CARRIER_ADDRESSES if chance[2] < 0.1 else None
        if action == "offline_purchase":
            self._add(t, facts | {"type": "offline"}, None)
        else:
            promo = self._promo_code(campaign, order, chance) if action != "lead" else None
            by_pixel = promo is None or bool(chance[5] < 0.85)
            if promo is not None:
                self._add(t + 1, facts | {"type": "promo_code", "discount_code": promo[1]}, None)
                self.promo_orders[promo[0]] += 1
                self.promo_and_pixel[promo[0]] += by_pixel
            if by_pixel:
                url = f"https://{self.sponsor.domain}/thanks"
                self._add(t, facts | {"type": "pixel", "url": url}, (home, away))
            self._visits_before(t, home, campaign, order, away, chance)
        self._aftermath(t, campaign, facts, chance, sold=sold and value > 0)

    def _promo_code(self, campaign: int, order: int, chance: Floats) -> tuple[int, str] | None:
        """Return the code that was entered, if any: of the ad that was heard, or found somewhere."""
        if campaign == BASELINE:
            if chance[3] >= 0.025:
                return None
            campaign = self.campaigns[int(chance[4] * len(self.campaigns))]
            order = int(chance[4] * 997) % len(self.tenant.campaigns[campaign].orders)
        elif chance[3] >= 0.3:
            return None
        code = self.tenant.campaigns[campaign].orders[order].promo_code
        return campaign, code.lower() if chance[4] * 10 % 1 < 0.12 else code

    def _visits_before(
        self, t: int, home: int, campaign: int, order: int, away: int | None, chance: Floats
    ) -> None:
        """Report the visit that led to a conversion: by the vanity URL, or straight to the shop."""
        before = t - 120 - int(chance[6] * 2_400)
        if before < self.opens:
            return
        if campaign != BASELINE and chance[7] < 0.25:
            url = self.tenant.campaigns[campaign].orders[order].vanity_url
            self._add(before, {"action": "view", "type": "vanity_url", "url": url}, (home, away))
        elif chance[7] < 0.8:
            url = f"https://{self.sponsor.domain}/"
            self._add(before, {"action": "view", "type": "pixel", "url": url}, (home, away))

    def _aftermath(self, t: int, campaign: int, facts: Row, chance: Floats, *, sold: bool) -> None:
        """Report the answer to the survey at the checkout, and the refund."""
        if "order_number" in facts and chance[8] < 0.08:
            heard = chance[6] < (0.8 if campaign != BASELINE else 0.05)
            properties = {
                "question": "How did you hear about us?",
                "answer": "podcast" if heard else ("friend", "search", "social")[int(chance[7] * 3)],
            }
            answer: Row = facts | {"type": "survey", "properties": properties}
            if heard:
                known = campaign if campaign != BASELINE else self.campaigns[0]
                answer["campaign_id"] = self.tenant.campaigns[known].campaign_id
            self._add(t + 45, answer, None)
        returned = t + DAY_SECONDS + int(chance[6] * 12 * DAY_SECONDS)
        if sold and chance[8] > 0.975 and returned < self.closes:
            refund = facts | {
                "type": "offline" if facts["action"] == "offline_purchase" else "pixel",
                "value": f"-{facts['value']}",
                "is_new_customer": False,
                "properties": {"kind": "refund"},
            }
            self._add(returned, refund, None)

    def browse(self) -> None:
        """Report visits to the sponsor's site that lead to nothing."""
        visits = _baseline(0.08, self.homes, (self.opens, self.closes), self.rng)
        pages = self.rng.choice(len(_PAGES), size=len(visits["t"]))
        for t, home, page in zip(visits["t"].tolist(), visits["home"].tolist(), pages.tolist(), strict=True):
            url = f"https://{self.sponsor.domain}{_PAGES[page]}"
            self._add(t, {"action": "view", "type": "pixel", "url": url}, (home, None))

    def visit(self, campaign: int, exposures: Columns) -> None:
        """Report visits by the vanity URL that lead to nothing: the curious, campaigns without effect too."""
        curious = np.flatnonzero(self.rng.random(len(exposures["t"])) < 0.004)
        wait = self.rng.exponential(20_000.0, size=len(curious)).astype(np.int64)
        for place, seconds in zip(curious.tolist(), wait.tolist(), strict=True):
            t = int(exposures["t"][place]) + 90 + seconds
            order = self.tenant.campaigns[campaign].orders[int(exposures["order"][place])]
            if t < self.closes:
                row: Row = {"action": "view", "type": "vanity_url", "url": order.vanity_url}
                self._add(t, row, (int(exposures["home"][place]), None))

    def _add(self, t: int, facts: Row, client: tuple[int, int | None] | None) -> None:
        """Add a row; what lies beyond the period is cut off."""
        if t >= self.closes:
            return
        place = len(self.rows)
        row = {"event_id": self._event_id(place), "sponsor_id": self.sponsor.sponsor_id} | facts
        if client is not None:
            home = client[0]
            row["user_agent"] = self.agents[int(self._agent_of_home[home])]
            row["cookie_id"] = hashlib.sha256(
                f"{self.tenant.tenant_id}/{self.sponsor.sponsor_id}/{home}".encode()
            ).hexdigest()[:16]
        self.rows.append(Response(t, row, client))

    def _event_id(self, place: int) -> str:
        """Return a UUID of version 4 in form, the same for the same row of the same data."""
        text = hashlib.sha256(
            f"{self.tenant.tenant_id}/{self.sponsor.sponsor_id}/{self._salt}/{place}".encode()
        ).hexdigest()
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"

    def _emails(self, homes: Ints) -> list[str]:
        return [
            hashlib.sha256(f"buyer-{number}@mail.example".encode()).hexdigest()
            for number in mix(homes, np.full(len(homes), self._salt, dtype=np.int64)).tolist()
        ]


_PAGES: Final = ("/", "/pricing", "/about", "/catalogue", "/help")


def _truth(
    tenant: Tenant, place: int, exposures: Columns, conversions: Columns, sponsor: _SponsorRows
) -> CampaignTruth:
    campaign = tenant.campaigns[place]
    caused = conversions["campaign"] == place
    baseline = conversions["campaign"] == BASELINE
    age = conversions["t"][caused] - conversions["seen"][caused]
    dai = int(exposures["dai"].sum())
    kinds = [kind for kind in ("baked_in", "dai") if any(u.delivery == kind for u in campaign.units)]
    after = _follows(
        exposures,
        conversions["t"][baseline],
        conversions["home"][baseline],
        campaign.lookback_days,
    )
    return CampaignTruth(
        tenant=tenant.tenant_id,
        campaign_id=campaign.campaign_id,
        sponsor_id=sponsor.sponsor.sponsor_id,
        name=campaign.name,
        delivery="+".join(kinds),
        conversion_actions=campaign.actions,
        lookback_days=campaign.lookback_days,
        starts_on=campaign.starts_on,
        ends_on=campaign.ends_on,
        lift_per_exposure=campaign.lift,
        exposures=len(exposures["t"]),
        exposures_baked_in=len(exposures["t"]) - dai,
        exposures_dai=dai,
        reach=len(np.unique(exposures["home"])),
        incremental_conversions=int(caused.sum()),
        incremental_in_lookback=int((age <= campaign.lookback_days * DAY_SECONDS).sum()),
        incremental_revenue=round(sponsor.revenue[place], 2),
        baseline_conversions=int(baseline.sum()),
        baseline_after_exposure=int(after.sum()),
        promo_code_orders=sponsor.promo_orders[place],
        promo_code_and_pixel_orders=sponsor.promo_and_pixel[place],
    )
