// The type of a dashboard: Grafana's own types, made strict. A panel may omit options, for which Grafana has defaults, and
// JSON contains the values of enumerations instead of their names.
import type { Dashboard as GrafanaDashboard, FieldConfig, Panel, VariableModel } from '@grafana/schema';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as gauge from '@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as statusHistory from '@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type Written<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends (infer Item)[]
      ? Written<Item>[]
      : T extends object
        ? { [Key in keyof T]?: Written<T[Key]> }
        : T;

interface Defaults<Custom> extends Omit<Written<FieldConfig>, 'custom'> {
  custom?: Written<Custom>;
}

interface Override<Custom> {
  matcher: { id: 'byName'; options: string };
  properties: { id: keyof FieldConfig | `custom.${keyof Custom & string}`; value: unknown }[];
}

interface Of<Type extends string, Options, Custom = Record<string, never>>
  extends Pick<Panel, 'datasource' | 'gridPos' | 'hideTimeOverride' | 'maxDataPoints' | 'timeFrom' | 'transformations'> {
  type: Type;
  id: number;
  title: string;
  description: string;
  targets: { refId: string; target: string }[];
  fieldConfig: { defaults: Defaults<Custom>; overrides: Override<Custom>[] };
  options: Written<Options>;
}

type AnyPanel =
  | Of<'barchart', barchart.Options, barchart.FieldConfig>
  | Of<'bargauge', bargauge.Options>
  | Of<'gauge', gauge.Options>
  | Of<'stat', stat.Options>
  | Of<'status-history', statusHistory.Options, statusHistory.FieldConfig>
  | Of<'timeseries', timeseries.Options, timeseries.FieldConfig>;

export interface Dashboard extends Omit<Written<GrafanaDashboard>, 'panels' | 'templating'> {
  uid: string;
  title: string;
  description: string;
  schemaVersion: number;
  panels: AnyPanel[];
  templating: { list: Written<VariableModel>[] };
}
