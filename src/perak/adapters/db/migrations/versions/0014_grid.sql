-- The grid's hours as feeds told them (average intensity, hours since 1970), and where nodes were seen.
create table grid_hour (
    zone text not null,
    hour bigint not null,
    grams_per_kwh double precision not null check (grams_per_kwh between 0 and 3000),
    source text not null,
    factor text not null,
    primary key (zone, hour)
);

alter table node add column sighting jsonb;
