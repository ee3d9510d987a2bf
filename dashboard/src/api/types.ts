/** The objects of the admin API, from its own document. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Session = Schemas["Session"];
export type Gateway = Schemas["Gateway"];
export type Status = Schemas["Status"];
export type Deployment = Schemas["Deployment"];
export type Fault = Schemas["Fault"];
export type History = Schemas["History"];
export type Second = Schemas["Second"];
export type GatewayEvent = Schemas["Event"];
export type Key = Schemas["Key"];
export type IssuedKey = Schemas["IssuedKey"];
export type Team = Schemas["Team"];
export type Usage = Schemas["Usage"];
export type UsageRow = Schemas["UsageRow"];
export type SlaReport = Schemas["SlaReport"];
export type SlaClosing = Schemas["SlaClosing"];
export type SlaFigures = Schemas["SlaFigures"];
export type SlaKey = Schemas["SlaKey"];
export type PostureAnswers = Schemas["Posture"];
export type PostureAnswer = Schemas["PostureAnswer"];
export type Configuration = Schemas["Configuration"];
export type Setting = Schemas["Setting"];
export type AuditRow = Schemas["AuditRow"];
export type RequestRow = Schemas["Request"];

/** One page of a list. */
export interface List<T> {
  data: T[];
  has_more: boolean;
  next: string | null;
}
