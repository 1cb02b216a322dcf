-- What the stage `fit` writes (earmark/journeys/fit.py): credit that needs all journeys of a month at once.

create table if not exists attribution.fits (
    tenant_id text collate "C" not null,
    month date not null check (extract(day from month) = 1),
    sponsor_id text collate "C" not null,
    model text collate "C" not null,
    input_digest text not null,
    journeys_digest text not null,
    paths bigint not null,
    conversions bigint not null check (conversions > 0),
    nulls bigint not null,
    revenue numeric not null,
    note text,
    fitted_at timestamptz not null default now(),
    primary key (tenant_id, month, sponsor_id, model)
);
comment on table attribution.fits is
'One row a tenant, UTC month, sponsor of the conversions and data-driven model: what it was fitted to, and why it could not be.';
comment on column attribution.fits.sponsor_id is 'Empty where the sponsor of the conversions is not known.';
comment on column attribution.fits.input_digest is 'Of journeys, settings and method. Where it is the same, nothing is fitted anew.';
comment on column attribution.fits.journeys_digest is 'Of the journeys alone, by attribution.journeys_digest.';
comment on column attribution.fits.paths is 'Different paths, converting or not.';
comment on column attribution.fits.conversions is 'Conversions with a path.';
comment on column attribution.fits.nulls is 'Journeys that did not convert.';
comment on column attribution.fits.revenue is 'Of those conversions, in the currency that most of the month''s have.';
comment on column attribution.fits.note is 'Why the model, or its interval, was left out.';

create table if not exists attribution.channel_credits (
    tenant_id text collate "C" not null,
    month date not null,
    sponsor_id text collate "C" not null,
    model text collate "C" not null,
    channel text collate "C" not null,
    conversions double precision not null,
    low double precision,
    high double precision,
    removal_effect double precision,
    share_of_conversions double precision not null,
    share_of_revenue double precision not null,
    primary key (tenant_id, month, sponsor_id, model, channel),
    foreign key (tenant_id, month, sponsor_id, model) references attribution.fits on delete cascade
);
comment on table attribution.channel_credits is
'One row a tenant, UTC month, sponsor of the conversions, data-driven model and channel: its credit by all journeys of the month.';
comment on column attribution.channel_credits.low is 'Lower end of the 95 % bootstrap interval of the conversions.';
comment on column attribution.channel_credits.high is 'Upper end.';
comment on column attribution.channel_credits.removal_effect is
'The share of conversions that would be lost without the channel, by the Markov chain; null for other models.';
comment on column attribution.channel_credits.share_of_conversions is 'The shares of a fit add up to 1.';
comment on column attribution.channel_credits.share_of_revenue is 'Likewise of revenue in the month''s main currency.';
