create table if not exists tenancy.tenants (
    tenant_id text collate "C" primary key check (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    name text not null,
    created_at timestamptz not null default now()
);
comment on table tenancy.tenants is
'One row a tenant: a network, agency or advertiser. Its id is the name of its folder in the landing folder.';
