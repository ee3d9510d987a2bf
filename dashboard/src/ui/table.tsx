/** A table that is sorted by the column that is clicked. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

export interface Column<T> {
  id: string;
  title: string;
  cell: (row: T) => ComponentChildren;
  /** What it is sorted by; without it the column cannot be sorted by. */
  by?: (row: T) => string | number;
  numeric?: boolean;
  /** Left out where the page is narrow. */
  wide?: boolean;
}

interface TableProps<T> {
  caption: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  /** Where a row leads; its first column is the link. */
  href?: (row: T) => string;
  selected?: string | null;
}

export function sorted<T>(rows: T[], by: (row: T) => string | number, descending: boolean): T[] {
  const compare = (a: string | number, b: string | number) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sign = descending ? -1 : 1;
  return [...rows].sort((a, b) => sign * compare(by(a), by(b)));
}

export function Table<T>({ caption, columns, rows, id, href, selected }: TableProps<T>) {
  const [order, setOrder] = useState<{ id: string; descending: boolean } | null>(null);
  const by = columns.find((column) => column.id === order?.id)?.by;
  const shown = order !== null && by !== undefined ? sorted(rows, by, order.descending) : rows;
  const click = (column: Column<T>) => {
    if (order?.id !== column.id) setOrder({ id: column.id, descending: column.numeric === true });
    else setOrder({ id: column.id, descending: !order.descending });
  };
  const classes = (column: Column<T>) => [column.numeric ? "number" : "", column.wide ? "wide" : ""].join(" ").trim();
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => {
              const direction = order?.id === column.id ? (order.descending ? "descending" : "ascending") : "none";
              return (
                <th key={column.id} scope="col" class={classes(column)} aria-sort={direction}>
                  {column.by === undefined ? (
                    column.title
                  ) : (
                    <button type="button" class="sort" onClick={() => click(column)}>
                      {column.title}
                      <span aria-hidden="true" class="arrow">
                        {direction === "none" ? "" : direction === "ascending" ? "↑" : "↓"}
                      </span>
                    </button>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => (
            <tr key={id(row)} class={selected === id(row) ? "selected" : ""}>
              {columns.map((column, at) => (
                <td key={column.id} class={classes(column)}>
                  {at === 0 && href !== undefined ? <a href={href(row)}>{column.cell(row)}</a> : column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
